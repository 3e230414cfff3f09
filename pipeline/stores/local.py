"""A local directory as an object store, for one machine or a shared file system.

Guarantees: whoever reads a file sees the old object or the new one, also when a writer is killed at
any moment or the machine loses power. An object's file is never written in place: it is staged
beside the directory, synced, and renamed. A poller such as Triton never meets a staged file, since
it takes every folder below its root for a model.

The ETag is made of inode, size and time in nanoseconds, all of which a rename replaces at once: a
digest of the bytes would make every listing read every model.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pipeline.errors import ConflictError, SettingsError, TritonpipeError, UnavailableError
from pipeline.stores import StoredBytes, StoredObject
from pipeline.stores.keys import require_key
from pipeline.stores.staging import Staging

_ABSENT: Final = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_IN_THE_WAY: Final = frozenset(
    {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG}
)


class LocalStore:
    """A :class:`pipeline.stores.Store` of the files below ``root``.

    Unlike S3, a file system cannot hold both ``a`` and ``a/b``.
    """

    def __init__(self, root: Path) -> None:
        self.url = str(root)
        self._root = root
        self._staging = Staging(root)

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None if there is none."""
        found = self.read(key)
        return None if found is None else found.data

    def read(self, key: str) -> StoredBytes | None:
        """The bytes of an object with the ETag that belongs to exactly these bytes, or None."""
        with self._translated("read", key):
            try:
                with self._path(key).open("rb") as file:
                    stored = _stored(key, os.fstat(file.fileno()))
                    return StoredBytes(data=file.read(), stored=stored)
            except _ABSENT:
                return None

    def head(self, key: str) -> StoredObject | None:
        """What is known of an object without reading it, or None if there is none."""
        with self._translated("read", key):
            path = self._path(key)
            try:
                return _stored(key, path.stat()) if path.is_file() else None
            except _ABSENT:
                return None

    def put(self, key: str, data: bytes | Path) -> None:
        """Write one object, replacing any."""
        with self._staged("write", key, data) as (staged, target), self._staging.locked():
            self._move(staged, target)

    def create(self, key: str, data: bytes) -> bool:
        """Write one object only if there is none; False if there was one."""
        with self._staged("create", key, data) as (staged, target), self._staging.locked():
            if target.is_file():
                return False
            self._move(staged, target)
            return True

    def replace(self, key: str, data: bytes, *, etag: str) -> bool:
        """Write one object only if its ETag still is ``etag``; False if it is not."""
        with self._staged("replace", key, data) as (staged, target), self._staging.locked():
            found = self.head(key)
            if found is None or found.etag != etag:
                return False
            self._move(staged, target)
            return True

    def download(self, key: str, path: Path) -> None:
        """Write an object into a local file, in constant memory."""
        with self._translated("read", key):
            try:
                shutil.copyfile(self._path(key), path)
            except _ABSENT as error:
                raise ConflictError(f"there is no {self.url}/{key}") from error

    def list_folder(self, folder: str) -> list[StoredObject]:
        """All objects below ``folder/``, in order of key."""
        top = self._path(folder.rstrip("/")) if folder.strip("/") else self._root
        found = []
        with self._translated("list", folder):
            for parent, _, names in os.walk(top, onerror=_unless_absent):
                for name in names:
                    path = Path(parent) / name
                    if path.parent == self._root and self._staging.owns(name):
                        continue
                    with suppress(*_ABSENT):
                        key = path.relative_to(self._root).as_posix()
                        found.append(_stored(key, path.stat()))
        return sorted(found, key=lambda stored: stored.key)

    def delete(self, keys: list[str]) -> None:
        """Remove objects and the folders that they leave empty, which Triton takes for models."""
        for key in keys:
            path = self._path(key)
            with self._translated("delete", key), self._staging.locked():
                with suppress(*_ABSENT):
                    path.unlink()
                self._remove_empty_folders(path.parent)

    def _path(self, key: str) -> Path:
        require_key(key)
        return self._root / key

    @contextmanager
    def _staged(self, verb: str, key: str, data: bytes | Path) -> Iterator[tuple[Path, Path]]:
        target = self._path(key)
        with self._translated(verb, key), self._staging.file(data) as staged:
            yield staged, target

    def _move(self, staged: Path, target: Path) -> None:
        """Let the staged file be the object; under the lock, so that times follow the order."""
        new_folders = [p for p in target.parents if not p.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        now = time.time_ns()
        os.utime(staged, ns=(now, now))
        staged.replace(target)
        for folder in {target.parent, *(p.parent for p in new_folders)}:
            _sync(folder)

    def _remove_empty_folders(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                return
            folder = folder.parent

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _translation(error, verb, f"{self.url}/{key}".rstrip("/")) from error


def _translation(error: OSError, verb: str, where: str) -> TritonpipeError:
    message = f"cannot {verb} {where}: {error.strerror}"
    if error.errno in _NOT_ALLOWED:
        return SettingsError(message, hint="let this user write there, or choose another folder")
    if error.errno in _IN_THE_WAY:
        return ConflictError(
            message,
            hint="a file cannot be where a folder is, nor have a name longer than 255 bytes; "
            "move what is in the way",
        )
    return UnavailableError(message, hint="check the disk, then run the command again")


def _stored(key: str, status: os.stat_result) -> StoredObject:
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    written = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1000)
    return StoredObject(
        key=key,
        size=status.st_size,
        etag=f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}",
        last_modified=written,
    )


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, _ABSENT):
        raise error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
