"""What ``-C NAME=VALUE`` and the variables of NVIDIA's plugin mean in our settings."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pipeline.configuration import Configuration, load_configuration
from pipeline.errors import RequestError, SettingsError
from pipeline.flows.serving_options import OPTIONS
from pipeline.settings import Settings, load_settings

_log = logging.getLogger(__name__)

SETTINGS: Final = (
    *OPTIONS,
    "relative_tolerance",
    "absolute_tolerance",
    "allowed_row_fraction",
    "confirm_seconds",
    "export_seconds",
    "lock_seconds",
)
GOLDEN: Final = "golden"
STATE_DIRECTORY: Final = "state_dir"
_IGNORED: Final = "version"
"""NVIDIA's plugin documents it, and never reads it."""

_NVIDIA_S3: Final = re.compile(r"s3://(?P<endpoint>(https?://)?[^/:]+:[0-9]+)/(?P<path>.+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The config of one call.

    Attributes:
        configuration: All settings, with what the config says before everything else.
        serving: Which of the serving options the config names.
        golden: File with a golden request for an entry that has none.
        state_directory: The stack of ``run-local``.
    """

    configuration: Configuration
    serving: frozenset[str]
    golden: Path | None
    state_directory: Path | None

    @property
    def settings(self) -> Settings:
        """Those that hold for no model in particular."""
        return self.configuration.settings_of(None)

    def settings_of(self, registered_model: str) -> Settings:
        """Those that hold for a registered model."""
        return self.configuration.settings_of(self.configuration.table_of(registered_model))


def options_from_config(config: Mapping[str, Any] | None) -> Options:
    """Read the config of a call.

    Raises:
        RequestError: A key is unknown or a value not of its kind; names all of them.
        SettingsError: The environment is wrong.
    """
    wanted = {name: value for name, value in (config or {}).items() if value is not None}
    unknown = sorted(wanted.keys() - {*SETTINGS, GOLDEN, STATE_DIRECTORY, _IGNORED})
    if unknown:
        raise RequestError(
            f"the config has {', '.join(map(repr, unknown))}, which is no option of a deployment",
            hint=f"known are {', '.join((*SETTINGS, GOLDEN, STATE_DIRECTORY))}",
        )
    if _IGNORED in wanted:
        _log.warning(
            "config %s=%s has no effect: a version in Triton has the number of the registered one",
            _IGNORED,
            wanted[_IGNORED],
        )
    overrides: dict[str, Any] = {
        name: _as_setting(wanted[name]) for name in SETTINGS if name in wanted
    }
    return Options(
        configuration=load_configuration(_settings(overrides)),
        serving=frozenset(name for name in OPTIONS if name in wanted),
        golden=_path(wanted.get(GOLDEN)),
        state_directory=_path(wanted.get(STATE_DIRECTORY)),
    )


def environment_settings() -> dict[str, str]:
    """Where the servers are: what MLflow was told, and the variables of NVIDIA's plugin.

    Our own variables count before both.

    Raises:
        SettingsError: ``TRITON_MODEL_REPO`` or ``TRITON_URL`` cannot be taken over.
    """
    import mlflow

    # Otherwise MLflow would say a file in the current folder.
    is_set = mlflow.is_tracking_uri_set()
    found = {"TRITONPIPE_TRACKING_URI": mlflow.get_tracking_uri()} if is_set else {}
    repository, url = os.environ.get("TRITON_MODEL_REPO"), os.environ.get("TRITON_URL")
    if repository:
        found["TRITONPIPE_REPOSITORY"] = _repository(repository)
    if url:
        found |= _triton(url)
    return {name: value for name, value in found.items() if not os.environ.get(name)}


def _settings(overrides: Mapping[str, Any]) -> Settings:
    ours = {
        name if name == "TRITONPIPE_TRACKING_URI" else _field(name): value
        for name, value in environment_settings().items()
    }
    load_settings()  # tells what is wrong in the environment by the names of its variables
    try:
        return Settings(**(ours | dict(overrides)))
    except ValidationError as error:
        problems = "; ".join(
            f"{e['loc'][0]}: {e['msg']}, found {e['input']!r}" for e in error.errors()
        )
        raise RequestError(
            f"the config is wrong: {problems}", hint="correct the values given with -C NAME=VALUE"
        ) from None


def _field(variable: str) -> str:
    return variable.removeprefix("TRITONPIPE_").lower()


def _as_setting(value: Any) -> Any:
    """Lists of numbers as they are written in the environment."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _path(value: Any) -> Path | None:
    return None if value is None else Path(str(value)).expanduser().absolute()


def _repository(text: str) -> str:
    match = _NVIDIA_S3.fullmatch(text)
    if match is not None:
        endpoint = match["endpoint"]
        url = endpoint if "://" in endpoint else f"http://{endpoint}"
        raise SettingsError(
            f"TRITON_MODEL_REPO {text!r} names the S3 server and the bucket at once",
            hint=f"export AWS_ENDPOINT_URL={url} TRITON_MODEL_REPO=s3://{match['path']}",
        )
    return text if text.startswith("s3://") else str(Path(text).absolute())


def _triton(url: str) -> dict[str, str]:
    """HTTP as it is; gRPC on the next port, as Triton's own defaults are."""
    address = url.removeprefix("http://").rstrip("/")
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        raise SettingsError(
            f"TRITON_URL {url!r} is not HOST:PORT, without TLS",
            hint="set TRITONPIPE_TRITON_HTTP and TRITONPIPE_TRITON_GRPC instead",
        )
    return {
        "TRITONPIPE_TRITON_HTTP": address,
        "TRITONPIPE_TRITON_GRPC": f"{host}:{int(port) + 1}",
    }
