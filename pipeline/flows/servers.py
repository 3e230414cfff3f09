"""Opens what a flow needs: registry, stores and Triton, as the settings say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import SettingsError
from pipeline.flows.journal import Journal
from pipeline.registries import Registry
from pipeline.settings import Settings
from pipeline.stores import Store
from pipeline.triton import TritonClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Everything outside this process that a flow talks to."""

    registry: Registry
    repository: Store
    journal: Journal
    triton: TritonClient


@contextmanager
def open_servers(settings: Settings) -> Iterator[Servers]:
    """Open all servers; nothing is written.

    Raises:
        SettingsError: An address is missing or wrong, or the store refuses the credentials.
        UnavailableError: The store or Triton does not answer.
    """
    from pipeline.registries.mlflow import MlflowRegistry
    from pipeline.stores.objects import open_store

    repository = settings.required("repository").rstrip("/")
    store = open_store(repository)
    records = open_store(records_url(settings))
    registry = MlflowRegistry(settings.required("tracking_uri"))
    with TritonClient(http=settings.triton_http, grpc=settings.triton_grpc) as triton:
        store.head("config.pbtxt")
        yield Servers(registry=registry, repository=store, journal=Journal(records), triton=triton)


def records_url(settings: Settings) -> str:
    """Where releases and journal live: beside the repository, never inside it.

    Raises:
        SettingsError: The URL is inside the repository, where Triton would take it for a model.
    """
    repository = settings.required("repository").rstrip("/")
    records = settings.records.rstrip("/") or f"{repository}-records"
    is_bucket = repository.count("/") == 2
    if f"{records}/".startswith(f"{repository}/") or (is_bucket and not settings.records):
        raise SettingsError(
            f"the records at {records} would not be beside the model repository {repository}",
            hint="set TRITONPIPE_RECORDS to an s3:// URL outside the repository",
        )
    return records
