"""Whether the store holds the bytes that were sent: asked before anything refers to them.

A server that does not check what it receives keeps a body that was damaged on the way, under the
right size. Where the ETag is the MD5 of the bytes (most servers, for objects sent in one piece) it
is compared; otherwise the object is read again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline.artifacts import RepositoryEntry
from pipeline.errors import UnavailableError
from pipeline.manifest import FileDigest, digest_file
from pipeline.stores import Store, StoredObject

_ATTEMPTS: Final = 2


def put_verified(store: Store, key: str, data: bytes) -> None:
    """Write one small object and read it again; a damaged one is written once more.

    Raises:
        UnavailableError: The store does not answer, or keeps other bytes than it is sent.
    """
    for _ in range(_ATTEMPTS):
        store.put(key, data)
        if store.get(key) == data:
            return
    raise _altered(store, key)


def create_verified(store: Store, key: str, data: bytes) -> bool:
    """As :func:`put_verified`, but only if there is no such object; False if there was one.

    Raises:
        UnavailableError: The store does not answer, or keeps other bytes than it is sent.
    """
    if not store.create(key, data):
        return False
    if store.get(key) != data:
        put_verified(store, key, data)
    return True


def _altered(store: Store, key: str) -> UnavailableError:
    """The error for a store that does not keep what it is sent."""
    return UnavailableError(
        f"{store.url}/{key} has other bytes than were sent",
        hint="run the command again; if this repeats, look for another writer to this repository, "
        "or a proxy that alters what passes",
    )


def found_in(
    store: Store,
    folder: str,
    expected: Mapping[str, int],
    *,
    listed_before: Mapping[str, StoredObject] | None = None,
) -> dict[str, StoredObject]:
    """The objects of a folder; whatever is not listed as expected is asked for by its key.

    A listing can be late: an object is there before it is listed, and gone before it is not.

    Args:
        store: The store.
        folder: The folder.
        expected: Sizes by key.
        listed_before: A listing of the folder, or of one above it, that is as good as a new one.
    """
    if listed_before is None:
        found = {stored.key: stored for stored in store.list_folder(folder)}
    else:
        found = {k: stored for k, stored in listed_before.items() if k.startswith(f"{folder}/")}
    for key in sorted(found.keys() | expected.keys()):
        listed = found.pop(key, None)
        is_expected = listed is not None and listed.size == expected.get(key)
        stored = listed if is_expected else store.head(key)
        if stored is not None:
            found[key] = stored
    return found


def unlike_what_was_sent(store: Store, entry: RepositoryEntry) -> list[str]:
    """Files of a version that the store does not hold as they are in ``entry``; empty if all.

    Raises:
        SettingsError: The store refuses the credentials.
        UnavailableError: The store does not answer, or this machine cannot keep a copy.
    """
    folder = f"{entry.manifest.model}/{entry.manifest.version}"
    expected = {f"{folder}/{file.path}": file.size for file in entry.manifest.files}
    found = found_in(store, folder, expected)
    problems = []
    for file in entry.manifest.files:
        key = f"{folder}/{file.path}"
        stored = found.get(key)
        if stored is None or stored.size != file.size:
            has = "no" if stored is None else str(stored.size)
            problems.append(f"{key} has {has} bytes, expected {file.size}")
        elif not _has_md5_of(stored, entry.folder / file.path) and not reads_as(store, key, file):
            problems.append(f"{key} has other bytes than were sent")
    return problems


def _has_md5_of(stored: StoredObject, path: Path) -> bool:
    with path.open("rb") as stream:
        md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
    return stored.etag == md5.hexdigest()


def reads_as(store: Store, key: str, file: FileDigest) -> bool:
    """Whether an object has the bytes of a file; reads all of them.

    Raises:
        ConflictError: There is no such object.
        UnavailableError: The store does not answer, or this machine cannot keep a copy.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="tritonpipe-") as folder:
            copy = Path(folder) / "copy"
            store.download(key, copy)
            return digest_file(copy, copy.parent).sha256 == file.sha256
    except OSError as error:
        raise UnavailableError(
            f"cannot check {store.url}/{key}: no copy of it can be kept here: {error}",
            hint=f"make room for {file.size} bytes in the folder for temporary files, or set "
            "TMPDIR to another one, then run the command again",
        ) from error
