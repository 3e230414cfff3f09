"""From one environment to the next: a version of ``dev.fraud`` becomes one of ``prod.fraud``.

Environments are registered models of one MLflow, or several MLflow servers. Guarantees: the copy
has the artifacts of the original, byte for byte, and says where it comes from; copied twice is
copied once; an alias is set last, so that nothing unfinished is ever wished.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.artifacts import ModelVersion, PromotionRequest
from pipeline.errors import RequestError
from pipeline.flows.claims import TAG_PREFIX, is_recorded
from pipeline.flows.progress import Progress, silent
from pipeline.settings import Settings

COPIED_FROM: Final = f"{TAG_PREFIX}copied_from"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """One version that was copied.

    Attributes:
        source: The original, as ``NAME/VERSION``.
        name: The registered model of the copy.
        version: Number of the copy.
        is_new: Whether it was made now.
        alias: The alias that points at it now; empty if none was set.
        address: The MLflow server that it is in.
    """

    source: str
    name: str
    version: int
    is_new: bool
    alias: str
    address: str


def copy_version(
    request: PromotionRequest,
    name: str,
    settings: Settings,
    *,
    alias: str = "",
    to: str = "",
    progress: Progress = silent,
) -> Copied:
    """Copy a version into another registered model.

    Args:
        request: What to copy.
        name: The registered model to copy into; made if it is not there.
        settings: Where the original is.
        alias: Set on the copy, if it is not empty.
        to: The MLflow server to copy into; empty for the same one.
        progress: Told the stages.

    Raises:
        RequestError: No such version, or it would be copied onto itself.
        ModelError: The artifacts cannot be fetched, or did not arrive whole.
        UnavailableError: A server does not answer.
    """
    from pipeline.registries.mlflow import MlflowRegistry
    from pipeline.registries.mlflow_copies import MlflowCopies

    source = MlflowRegistry(settings.required("tracking_uri"))
    target = MlflowCopies(to or source.tracking_uri)
    is_same_server = target.registry.address == source.address
    with progress("resolve") as describe:
        version = source.resolve(request)
        describe(f"{request} is version {version.version}")
    if is_same_server and version.name == name:
        raise RequestError(
            f"{version} would be copied into its own registered model",
            hint="name another one; to have it served, set its alias",
        )
    tags = {COPIED_FROM: f"{source.address} {version}"}
    with progress("copy") as describe:
        known = target.copied(name, tags)
        if known is not None:
            number = known.version
            describe(f"{name}/{number} is a copy already")
        elif is_same_server:
            number = target.copy(_for_another(version), name, tags)
            describe(f"{version} is {name}/{number}")
        else:
            with tempfile.TemporaryDirectory(prefix="tritonpipe-copy-") as folder:
                fetched = source.fetch(version, Path(folder))
                number = target.register(_for_another(version), fetched.path, name, tags)
            describe(f"{version} is {name}/{number} at {target.registry.address}")
    if alias:
        with progress("alias") as describe:
            target.set_alias(name, alias, number)
            describe(f"{alias} of {name} is version {number}")
    return Copied(
        source=str(version),
        name=name,
        version=number,
        is_new=known is None,
        alias=alias,
        address=target.registry.address,
    )


def _for_another(version: ModelVersion) -> ModelVersion:
    """The version with the author's tags alone: what we recorded is true of the original only."""
    tags = {key: value for key, value in version.tags.items() if not is_recorded(key)}
    return ModelVersion(
        name=version.name,
        version=version.version,
        run_id=version.run_id,
        source=version.source,
        tags=tags,
    )
