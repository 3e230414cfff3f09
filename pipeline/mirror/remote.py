"""The repository in the store, read only, with every request counted."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.stores import Store, StoredObject

_PAGE: Final = 1000
"""Keys that S3 gives per request of a listing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What was asked of the store since the start.

    Attributes:
        requests: How many, by kind: ``list`` or ``get``. Repetitions by the client are not seen.
        bytes: Downloaded files of versions.
    """

    requests: Mapping[str, int]
    bytes: int


class Remote:
    """A store that is only read; the errors are those of :class:`pipeline.stores.Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._requests = {"list": 0, "get": 0}
        self._bytes = 0

    @property
    def url(self) -> str:
        """Of the repository."""
        return self._store.url

    @property
    def traffic(self) -> Traffic:
        """What was asked so far."""
        with self._lock:
            return Traffic(requests=dict(self._requests), bytes=self._bytes)

    def list(self) -> list[StoredObject]:
        """Everything in the repository: one request per thousand objects."""
        self._count("list")
        objects = self._store.list_folder("")
        self._count("list", max(0, (len(objects) - 1) // _PAGE))
        return objects

    def read(self, key: str) -> bytes | None:
        """The bytes of one object; None if the store says that there is none."""
        self._count("get")
        return self._store.get(key)

    def download(self, key: str, path: Path) -> None:
        """Write one object into a new file, whose folder is made if it is missing.

        Raises:
            ConflictError: There is no such object.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._count("get")
        self._store.download(key, path)
        size = path.stat().st_size
        with self._lock:
            self._bytes += size

    def _count(self, kind: str, number: int = 1) -> None:
        with self._lock:
            self._requests[kind] += number
