"""Where the servers are and how models are served, read once from the environment.

Addresses and credentials of others keep the names that their own tools use
(``MLFLOW_TRACKING_URI``, ``AWS_*``); everything of ours is ``TRITONPIPE_*``. Secrets are never part
of these settings: the S3 client takes them from the ordinary AWS variables itself.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pipeline.errors import SettingsError
from pipeline.reports import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE

_START_STACK = (
    'start the local servers with "tritonpipe stack up" and run '
    'eval "$(tritonpipe stack env)", or set the variable yourself'
)

CommaSeparated = Annotated[tuple[str, ...], NoDecode]

AuthorSetting = Literal[
    "max_batch_size",
    "preferred_batch_sizes",
    "max_queue_delay_microseconds",
    "instances",
    "relative_tolerance",
    "absolute_tolerance",
    "allowed_row_fraction",
]
AUTHOR_SETTINGS: Final[tuple[AuthorSetting, ...]] = get_args(AuthorSetting)
"""What the author of a model may know better than who runs the pipeline; see ``author_tags``."""

_BATCH_SIZE = Field(ge=1, le=2**20)
"""Triton's config holds more, but each largest batch is run by the check before it is served."""

_MOST_BATCH_SIZES: Final = 64
"""That are preferred: more than anybody has measured, and few enough for Triton's batcher."""


class Settings(BaseSettings):
    """All settings; every field can be set by ``TRITONPIPE_`` and its name in upper case."""

    model_config = SettingsConfigDict(env_prefix="TRITONPIPE_", extra="ignore", frozen=True)

    tracking_uri: str = Field(
        default="", validation_alias=AliasChoices("TRITONPIPE_TRACKING_URI", "MLFLOW_TRACKING_URI")
    )
    """MLflow server that holds the registry."""

    repository: str = ""
    """Model repository that Triton polls, such as ``s3://models/repository``."""

    records: str = ""
    """Releases and journal; beside the repository by default, never inside it."""

    triton_http: str = "127.0.0.1:8000"
    """HTTP addresses of Triton, separated by commas; a name stands for all that it resolves to."""

    triton_grpc: str = "127.0.0.1:8001"
    """gRPC addresses, in the same order."""

    lock: str = ""
    """What keeps two publishers of one model apart: a folder for those on one machine, or a
    ``postgresql://`` URL; by default leases in the store, if it honours conditional writes."""

    lock_seconds: Annotated[float, Field(ge=0)] = 300.0
    """How long to wait for another publisher of the same model."""

    alias: str = "champion"
    """The alias that a request means when it names none."""

    max_batch_size: Annotated[int, _BATCH_SIZE] = 64
    """Largest batch that Triton's dynamic batcher forms."""

    preferred_batch_sizes: Annotated[tuple[Annotated[int, _BATCH_SIZE], ...], NoDecode] = ()
    """At most 64 batch sizes that are sent at once when reached, separated by commas; none means as
    large as possible."""

    max_queue_delay_microseconds: Annotated[int, Field(ge=0, le=60_000_000)] = 100
    """How long a request may wait for others to share its batch."""

    instances: Annotated[int, Field(ge=1, le=1024)] = 1
    """Copies of the model on each device."""

    device: Literal["cpu", "gpu"] = "cpu"
    """Where Triton runs the model."""

    relative_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = RELATIVE_TOLERANCE
    """Of answers; what is not set depends on the type of the output, see
    :mod:`pipeline.checks.tolerances`."""

    absolute_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = ABSOLUTE_TOLERANCE
    """Of answers near zero; the same holds for it."""

    allowed_row_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The part of all compared rows that may be out of tolerance; the same holds for it."""

    author_tags: Annotated[tuple[AuthorSetting, ...], NoDecode] = AUTHOR_SETTINGS
    """The settings that the author of a model may set by tags in MLflow, separated by commas;
    ``none`` for nothing. What is set elsewhere counts before the tags, see
    :mod:`pipeline.flows.author_tags`."""

    refusals: str = ""
    """Folder for the inputs on which an export failed; a temporary one by default."""

    confirm_seconds: Annotated[float, Field(gt=0)] = 90.0
    """How long to wait for Triton to serve a committed version before rolling back."""

    export_seconds: Annotated[float, Field(gt=0)] = 900.0
    """How long loading and exporting a model may take."""

    env: Literal["ours", "model"] = "ours"
    """With which packages models are exported: those that are installed here, or those that each
    model asks for, which are installed for it first."""

    cache: str = ""
    """Folder of exports that need not be made again; by default below the user's cache folder, and
    ``off`` for none."""

    cache_bytes: Annotated[int, Field(ge=0)] = 10 * 2**30
    """What they may take; the ones not used for longest go first."""

    isolation: Literal["auto", "require", "off"] = "auto"
    """Whether a model's code is kept from the network, the files and the processes of this user: as
    far as the kernel allows it, or not without it, or not at all."""

    pyfunc: Literal["off", "tagged", "on"] = "off"
    """Whether Triton may run the own Python code of models that no exporter can convert: never, or
    of versions with the tag ``tritonpipe.pyfunc=allow``, or of all; see ``docs/pyfunc.md``."""

    pyfunc_load_seconds: Annotated[float, Field(gt=0)] = 60.0
    """How long unpacking and loading such a model may take in the server."""

    pyfunc_request_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How long such a model may take for an answer."""

    pyfunc_bytes: Annotated[int, Field(ge=0)] = 4 * 2**30
    """What the packages of such a model may take, unpacked."""

    sign: bool = False
    """Whether what is published is signed."""

    signing_method: Literal["key", "certificate", "sigstore"] = "key"
    """How: with a key pair, with a key and its certificate, or as an identity that Sigstore knows.
    The password of a key is read from ``TRITONPIPE_SIGNING_KEY_PASSWORD``."""

    signing_key: str = ""
    """File with the private key: elliptic curve, in PEM."""

    signing_certificate: str = ""
    """File with the certificate of that key."""

    signing_chain: CommaSeparated = ()
    """Files with the certificates between that one and the root, separated by commas."""

    verify_key: str = ""
    """File with the public key by which releases must be signed."""

    verify_certificates: CommaSeparated = ()
    """Or: files with the root certificates, separated by commas."""

    verify_identity: str = ""
    """Or: the identity that Sigstore must vouch for, such as ``me@example.org``, …"""

    verify_issuer: str = ""
    """… and who vouches for it to Sigstore, such as ``https://accounts.google.com``."""

    @field_validator("signing_chain", "verify_certificates", mode="before")
    @classmethod
    def _files(cls, value: object) -> object:
        return _split_at_commas(value)

    @field_validator("preferred_batch_sizes", "author_tags", mode="before")
    @classmethod
    def _values_or_none(cls, value: object) -> object:
        parts = _split_at_commas(value)
        return [] if parts == ["none"] else parts

    @field_validator("preferred_batch_sizes")
    @classmethod
    def _few_sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        sizes = tuple(dict.fromkeys(value))
        if len(sizes) > _MOST_BATCH_SIZES:
            raise PydanticCustomError(
                "too_many_sizes", f"expected at most {_MOST_BATCH_SIZES} different sizes"
            )
        return sizes

    def explicit(self, *names: str) -> dict[str, float]:
        """Those of these settings that were set, not those that have their default."""
        return {name: getattr(self, name) for name in names if name in self.model_fields_set}

    def required(self, name: str) -> str:
        """The value of a setting that has no default.

        Raises:
            SettingsError: It is not set.
        """
        value = str(getattr(self, name))
        if not value:
            raise SettingsError(f"{_variable(name)} is not set", hint=_START_STACK)
        return value


def _split_at_commas(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.strip("[] ").split(",") if part.strip()]


def _variable(field: str) -> str:
    return "MLFLOW_TRACKING_URI" if field == "tracking_uri" else f"TRITONPIPE_{field.upper()}"


def load_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: A value is not of its kind; all such values are named.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"{_variable(str(e['loc'][0]))}: {e['msg']} (found {e['input']!r})"
            for e in error.errors()
        )
        raise SettingsError(
            f"settings are wrong: {problems}", hint="correct the variables"
        ) from None
