"""Finds out what a server does with conditional writes, since nothing else tells.

``rclone serve s3`` answers 200 to every condition and overwrites; radosgw compares ETags without
their quotation marks; some servers check and write in two steps, so that two creators can both win.
Every one of them says that it is S3.
"""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, Protocol, runtime_checkable

from pipeline.errors import TritonpipeError
from pipeline.stores import Conditions, Store

_RACERS: Final = 12
_RACES: Final = 3


@runtime_checkable
class LooksFirst(Protocol):
    """A store whose ``create`` looks before it writes, which would hide what the server does."""

    def create_blindly(self, key: str, data: bytes) -> bool:
        """As ``create``, without looking."""


def probe_conditions(store: Store) -> Conditions:
    """Try every condition on throw-away objects below ``.probe-…/``, which are removed again.

    Call it with a store of records, never with a model repository, where Triton would take the
    folder for a model.

    Raises:
        SettingsError: The store refuses the credentials.
        UnavailableError: The store does not answer; nothing was found out.
    """
    folder = f".probe-{uuid.uuid4().hex}"
    try:
        create = _creates_once(store, f"{folder}/create")
        replace = _replaces_if_match(store, f"{folder}/replace")
        atomic = create and all(_race(store, f"{folder}/race-{n}") == 1 for n in range(_RACES))
    finally:
        with suppress(TritonpipeError):  # the first failure is the one to be told
            store.delete([stored.key for stored in store.list_folder(folder)])
    return Conditions(create=create, replace=replace, atomic=atomic)


def _creates_once(store: Store, key: str) -> bool:
    return _create(store, key, b"first") and not _create(store, key, b"second")


def _replaces_if_match(store: Store, key: str) -> bool:
    store.put(key, b"first")
    first = store.head(key)
    if first is None or not store.replace(key, b"second", etag=first.etag):
        return False
    # Now the ETag of the first is stale.
    return not store.replace(key, b"third", etag=first.etag) and store.get(key) == b"second"


def _create(store: Store, key: str, data: bytes) -> bool:
    if isinstance(store, LooksFirst):
        return store.create_blindly(key, data)
    return store.create(key, data)


def _race(store: Store, key: str) -> int:
    """How many of several creators at the same moment were told that it is theirs."""
    start = threading.Barrier(_RACERS)

    def create(number: int) -> bool:
        start.wait()
        return _create(store, key, f"racer {number}".encode())

    with ThreadPoolExecutor(_RACERS) as pool:
        return sum(pool.map(create, range(_RACERS)))
