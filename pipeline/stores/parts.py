"""Large objects in parts: several at once, in bounded memory, each of them checked.

A part is as small as the limit of 10,000 parts allows, and so many are under way that they fill a
fast line but not the memory: about 80 MiB, whatever the size of the object.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

import obstore
from obstore import exceptions
from obstore.store import MemoryStore, S3Store

from pipeline.errors import ConflictError, UnavailableError
from pipeline.stores.repetition import has_no_ranges, repeated

if TYPE_CHECKING:
    from obstore import Bytes, GetResult, ObjectMeta

PART: Final = 8 * 1024 * 1024
"""Bytes; what is not larger goes in one piece."""

_MOST_PARTS: Final = 10_000
_UNDER_WAY: Final = 10 * PART


def put_in_parts(
    client: S3Store | MemoryStore, key: str, path: Path, sent: Callable[[int], None]
) -> None:
    """Write a file, telling the bytes of each part when it is handed over.

    After an error the bytes that were told are taken back, by a negative number.
    """
    size = path.stat().st_size
    part = part_size(size)
    told = 0

    def tell(count: int) -> None:
        nonlocal told
        told += count
        sent(count)

    try:
        obstore.put(
            client,
            key,
            _parts(path, part, tell),
            chunk_size=part,
            max_concurrency=max(2, _UNDER_WAY // part),
        )
    except BaseException:
        sent(-told)
        raise


def part_size(size: int) -> int:
    """Bytes of each part of an object of ``size`` bytes."""
    return max(PART, -(-size // _MOST_PARTS))


def _parts(path: Path, part: int, sent: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while data := file.read(part):
            yield data
            sent(len(data))


def read_whole(client: S3Store | MemoryStore, key: str) -> tuple[bytes, ObjectMeta]:
    """An object and what the server said of it in the same answer; all bytes that it announced."""
    result = obstore.get(client, key)
    return bytes(_all(result)), result.meta


def download_in_parts(client: S3Store | MemoryStore, key: str, path: Path) -> None:
    """Write an object into a file, all of one write of it; after an error there is no file.

    Raises:
        ConflictError: It was replaced meanwhile.
        UnavailableError: The server keeps sending less than it announces.
    """
    result = obstore.get(client, key)
    try:
        with path.open("wb", buffering=0) as file:
            if result.meta["size"] <= PART:
                _write_at(file.fileno(), _all(result), 0)
            else:
                _download_large(client, key, result.meta, file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _download_large(
    client: S3Store | MemoryStore, key: str, meta: ObjectMeta, descriptor: int
) -> None:
    try:
        _download_parts(client, key, meta, descriptor)
    except exceptions.GenericError as error:
        if not has_no_ranges(error):
            raise
        _download_whole(client, key, descriptor)


def _download_whole(client: S3Store | MemoryStore, key: str, descriptor: int) -> None:
    result = obstore.get(client, key)
    done = 0
    for chunk in result.stream():
        _write_at(descriptor, chunk, done)
        done += len(chunk)
    _require_all(done, result.meta["size"])


def _download_parts(
    client: S3Store | MemoryStore, key: str, meta: ObjectMeta, descriptor: int
) -> None:
    def fetch(start: int) -> None:
        end = min(start + PART, meta["size"])
        result = obstore.get(client, key, options={"range": (start, end)})
        if result.meta["e_tag"] != meta["e_tag"]:
            raise ConflictError(
                f"{key} was replaced while it was read", hint="run the command again"
            )
        _write_at(descriptor, _all(result), start)

    pool = ThreadPoolExecutor(_UNDER_WAY // PART)
    try:
        list(pool.map(lambda start: repeated(lambda: fetch(start)), range(0, meta["size"], PART)))
    finally:
        pool.shutdown(cancel_futures=True)


def _all(result: GetResult) -> Bytes:
    data, (start, end) = result.bytes(), result.range
    _require_all(len(data), end - start)
    return data


def _require_all(received: int, announced: int) -> None:
    if received != announced:
        raise UnavailableError(
            f"the store sent {received} bytes of the {announced} that it announced",
            hint="check what is between here and the store, then run the command again",
        )


def _write_at(descriptor: int, data: Bytes | bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written
