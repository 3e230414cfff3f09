"""What is deployed: published models that come from the registry, and how Triton serves them."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from pipeline.artifacts import Release
from pipeline.errors import ConflictError, UnavailableError
from pipeline.flows.journal import open_attempt
from pipeline.flows.parts import PARTS, owner_of
from pipeline.flows.publish import read_state
from pipeline.flows.replicas import Replicas
from pipeline.flows.repository import Repository, open_repository
from pipeline.manifest import Lineage
from pipeline.model_config import CONFIG_NAME
from pipeline.repository_names import is_legal_model
from pipeline.settings import Settings
from pipeline.triton import TritonClient

_log = logging.getLogger(__name__)

TRITON: Final = "triton"
"""Flavor of a ready entry of the model repository, as NVIDIA's plugin logs it."""

_REGISTERED: Final = "models:/"
_READY: Final = "READY"
_READERS: Final = 16
"""Models whose records are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One deployment.

    Attributes:
        name: Its name, also that of the Triton model.
        version: The Triton version, with the number of the registered version.
        state: ``READY`` if every server serves this version; otherwise what the first that does not
            says of it, ``UNAVAILABLE``, or ``UNKNOWN`` if it does not answer.
        path: Where its files are.
        model_uri: The registered version: never an alias, which may have moved since.
        flavor: The flavor that is served.
    """

    name: str
    version: int
    state: str
    path: str
    model_uri: str
    flavor: str

    def described(self) -> dict[str, str]:
        """As NVIDIA's plugin describes one."""
        return {
            "name": self.name,
            "version": str(self.version),
            "state": self.state,
            "triton_model_path": self.path,
            "mlflow_model_uri": self.model_uri,
            "flavor": self.flavor,
        }


def all_deployments(settings: Settings) -> list[Deployment]:
    """Everything that is deployed, by name; a record that cannot be read is told in the log.

    Raises:
        SettingsError: An address is missing, or the store refuses the credentials.
        UnavailableError: The store does not answer.
    """
    with open_repository(settings) as repository:
        keys = [o.key for o in repository.store.list_folder("")]
        names = [key.removesuffix(f"/{CONFIG_NAME}") for key in keys if key.endswith(CONFIG_NAME)]
        legal = sorted(name for name in names if is_legal_model(name))
        with ThreadPoolExecutor(max_workers=_READERS) as readers:
            releases = list(readers.map(partial(_readable_release, repository), legal))
        return [
            _deployment(repository, release, settings)
            for release in releases
            if release is not None
        ]


def deployment_of(name: str, settings: Settings) -> Deployment | None:
    """The deployment of this name; None if there is none.

    Raises:
        SettingsError: As there; likewise ``UnavailableError``.
    """
    with open_repository(settings) as repository:
        release = _release(repository, name)
        return None if release is None else _deployment(repository, release, settings)


def is_under_way(name: str, settings: Settings) -> bool:
    """Whether the last run that changed what is served has not ended, or was killed."""
    with open_repository(settings) as repository:
        return open_attempt(repository.journal.entries(name)) is not None


def is_held(name: str, settings: Settings) -> bool:
    """Whether the repository serves something of this name, deployment or not."""
    with open_repository(settings) as repository:
        return read_state(repository.store, name).config is not None


def was_deployed(name: str, settings: Settings) -> bool:
    """Whether anything was ever served under this name."""
    with open_repository(settings) as repository:
        return bool(repository.journal.entry_numbers(name))


def lineage_of(name: str, version: int, settings: Settings) -> Lineage | None:
    """Where a version comes from; None if there is no record of it."""
    with open_repository(settings) as repository:
        release = repository.journal.release(name, version)
        return None if release is None else release.manifest.lineage


def model_uri_of(lineage: Lineage) -> str:
    """The registered version that a release comes from; empty if it was published by hand."""
    if not lineage.is_by_hand:
        return f"{_REGISTERED}{lineage.registered_model}/{lineage.registered_version}"
    return lineage.source if lineage.source.startswith(_REGISTERED) else ""


def _readable_release(repository: Repository, name: str) -> Release | None:
    try:
        return _release(repository, name)
    except ConflictError as error:
        _log.warning("%s is left out: %s", name, error)
        return None


def _release(repository: Repository, name: str) -> Release | None:
    """What is published under this name, if that is a deployment."""
    try:
        versions = read_state(repository.store, name).versions
    except ConflictError:
        return None  # a config of others
    release = repository.journal.release(name, max(versions)) if versions else None
    if release is None or not model_uri_of(release.manifest.lineage) or _is_part(repository, name):
        return None
    return release


def _is_part(repository: Repository, name: str) -> bool:
    if name.rpartition(".")[2] not in PARTS:
        return False  # without reading its history
    return bool(owner_of(name, repository.journal.entries(name)))


def _deployment(repository: Repository, release: Release, settings: Settings) -> Deployment:
    manifest, lineage = release.manifest, release.manifest.lineage
    return Deployment(
        name=manifest.model,
        version=manifest.version,
        state=_state(repository.replicas, manifest.model, manifest.version),
        path=f"{settings.repository.rstrip('/')}/{manifest.model}",
        model_uri=model_uri_of(lineage),
        flavor=TRITON if lineage.is_by_hand else lineage.flavor,
    )


def _state(replicas: Replicas, name: str, version: int) -> str:
    states = (_state_on(replica, name, version) for replica in replicas)
    return next((state for state in states if state != _READY), _READY)


def _state_on(replica: TritonClient, name: str, version: int) -> str:
    if replica.is_ready(name, version):
        return _READY
    try:
        found = replica.versions(name).get(version)
    except UnavailableError:
        return "UNKNOWN"
    return found.state if found is not None and found.state else "UNAVAILABLE"
