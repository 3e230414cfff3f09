"""What is deployed: published models that come from the registry, and how Triton serves them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from pipeline.errors import ConflictError, UnavailableError
from pipeline.flows.journal import open_attempt
from pipeline.flows.parts import owner_of
from pipeline.flows.publish import read_state
from pipeline.flows.replicas import Replicas, open_replicas
from pipeline.flows.repository import Repository, open_repository
from pipeline.manifest import Lineage
from pipeline.model_config import CONFIG_NAME
from pipeline.repository_names import is_legal_model
from pipeline.settings import Settings
from pipeline.triton import TritonClient

TRITON: Final = "triton"
"""Flavor of a ready entry of the model repository, as NVIDIA's plugin logs it."""

_REGISTERED: Final = "models:/"
_READY: Final = "READY"
_POLL_SECONDS: Final = 0.1


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
        is_proven: Whether the run that deployed it has ended.
    """

    name: str
    version: int
    state: str
    path: str
    model_uri: str
    flavor: str
    is_proven: bool

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
    """Everything that is deployed, by name.

    Raises:
        SettingsError: An address is missing, or the store refuses the credentials.
        UnavailableError: The store does not answer.
    """
    with open_repository(settings) as repository:
        keys = [o.key for o in repository.store.list_folder("")]
        names = [key.removesuffix(f"/{CONFIG_NAME}") for key in keys if key.endswith(CONFIG_NAME)]
        legal = sorted(name for name in names if is_legal_model(name))
        found = [_deployment(repository, name, settings) for name in legal]
        return [deployment for deployment in found if deployment is not None]


def deployment_of(name: str, settings: Settings) -> Deployment | None:
    """The deployment of this name; None if there is none.

    Raises:
        SettingsError: As there; likewise ``UnavailableError``.
    """
    with open_repository(settings) as repository:
        return _deployment(repository, name, settings)


def is_held(name: str, settings: Settings) -> bool:
    """Whether the repository serves something of this name, deployment or not."""
    with open_repository(settings) as repository:
        return read_state(repository.store, name).config is not None


def was_deployed(name: str, settings: Settings) -> bool:
    """Whether anything was ever served under this name."""
    with open_repository(settings) as repository:
        return bool(repository.journal.entry_numbers(name))


def await_unloaded(name: str, version: int, settings: Settings) -> None:
    """Return when no server answers for a version whose files are away.

    Raises:
        UnavailableError: One still does.
    """
    deadline = time.monotonic() + settings.confirm_seconds
    with open_replicas(settings) as replicas:
        for replica in replicas:
            while replica.is_ready(name, version):
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"{name}/{version} is removed, and Triton at {replica.http_address} has "
                        f"not unloaded it within {settings.confirm_seconds:g} s",
                        hint="look whether it polls the repository",
                    )
                time.sleep(_POLL_SECONDS)


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


def _deployment(repository: Repository, name: str, settings: Settings) -> Deployment | None:
    try:
        versions = read_state(repository.store, name).versions
    except ConflictError:
        return None  # a config of others
    release = repository.journal.release(name, max(versions)) if versions else None
    uri = "" if release is None else model_uri_of(release.manifest.lineage)
    if release is None or not uri:
        return None
    lineage = release.manifest.lineage
    version = release.manifest.version
    entries = repository.journal.entries(name)
    if owner_of(name, next((e.together for e in reversed(entries) if e.together), ())):
        return None
    return Deployment(
        name=name,
        version=version,
        state=_state(repository.replicas, name, version),
        path=f"{settings.repository.rstrip('/')}/{name}",
        model_uri=uri,
        flavor=TRITON if lineage.is_by_hand else lineage.flavor,
        is_proven=open_attempt(entries) is None,
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
