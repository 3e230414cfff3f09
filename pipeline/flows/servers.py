"""Opens what a flow needs: registry, stores and Triton, as the settings say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.flows.journal import Journal
from pipeline.flows.replicas import Replicas
from pipeline.flows.repository import Repository, open_repository
from pipeline.locks import Locks
from pipeline.registries import Registry
from pipeline.settings import Settings
from pipeline.stores import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Everything outside this process that a flow talks to; ``replicas`` are all Tritons."""

    registry: Registry
    repository: Store
    journal: Journal
    replicas: Replicas
    locks: Locks


@contextmanager
def open_servers(settings: Settings) -> Iterator[Servers]:
    """Open all servers; nothing is written.

    Raises:
        SettingsError: An address is missing or wrong, or the store refuses the credentials.
        UnavailableError: The store or Triton does not answer.
    """
    from pipeline.registries.mlflow import MlflowRegistry

    with open_repository(settings) as opened:
        yield Servers(
            registry=MlflowRegistry(settings.required("tracking_uri")),
            repository=opened.store,
            journal=opened.journal,
            replicas=opened.replicas,
            locks=opened.locks,
        )


def repository_of(servers: Servers) -> Repository:
    """The part of open servers that is the repository."""
    return Repository(
        store=servers.repository,
        records=servers.journal.store,
        journal=servers.journal,
        replicas=servers.replicas,
        locks=servers.locks,
    )
