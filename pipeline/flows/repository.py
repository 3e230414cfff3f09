"""What those who care for a repository work on: its objects, its records and its servers.

Nothing of MLflow is needed to read a history or to check a repository, and nothing of it is
imported, which saves two seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import SettingsError
from pipeline.flows.journal import Journal
from pipeline.flows.replicas import Replicas, open_replicas
from pipeline.locks import Locks
from pipeline.locks.choice import open_locks
from pipeline.settings import Settings
from pipeline.stores import Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """One model repository.

    Attributes:
        store: What Triton polls.
        records: Where its releases and events are kept.
        journal: What reads and writes them.
        replicas: The servers that poll it.
        locks: Keep publishers and carers apart, model by model.
    """

    store: Store
    records: Store
    journal: Journal
    replicas: Replicas
    locks: Locks


def open_stores(settings: Settings) -> tuple[Store, Store]:
    """Open the repository and its records alone; works while MLflow and Triton are down.

    Raises:
        SettingsError: An address is missing or wrong, or the store refuses the credentials.
        UnavailableError: The store does not answer.
    """
    store = open_store(settings.required("repository").rstrip("/"))
    store.head("config.pbtxt")
    return store, open_store(records_url(settings))


@contextmanager
def open_repository(settings: Settings) -> Iterator[Repository]:
    """Open everything but the registry; no server of models is asked yet.

    Raises:
        SettingsError: An address is missing or wrong, or the store refuses the credentials.
        UnavailableError: The store does not answer, or the name of a Triton cannot be resolved.
    """
    store, records = open_stores(settings)
    locks = open_locks(settings.lock, repository=store.url, records=records)
    with open_replicas(settings) as replicas:
        yield Repository(
            store=store, records=records, journal=Journal(records), replicas=replicas, locks=locks
        )


def records_url(settings: Settings) -> str:
    """Where releases and journal live: beside the repository, never inside it.

    Raises:
        SettingsError: The URL is inside the repository, where Triton would take it for a model.
    """
    repository = settings.required("repository").rstrip("/")
    records = settings.records.rstrip("/") or f"{repository}-records"
    is_bucket = repository.startswith("s3://") and repository.count("/") == 2
    if f"{records}/".startswith(f"{repository}/") or (is_bucket and not settings.records):
        raise SettingsError(
            f"the records at {records} would not be beside the model repository {repository}",
            hint="set TRITONPIPE_RECORDS to an s3:// URL outside the repository",
        )
    return records
