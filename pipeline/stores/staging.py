"""Where the files of a local store are written before they become objects.

A staged file must be on the file system of the store, or it could not be renamed, and not in a
folder below its root, where Triton would take that folder for a model. So it is in a folder beside
the root; and where the root is a file system of its own (a volume mounted at ``/models``), it is a
hidden file directly in the root, of which Triton reads folders only.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = ".tritonpipe-"
_LEFT_BEHIND_SECONDS: Final = 24 * 3600.0


class Staging:
    """The staged files and the lock of the store at ``root``, shared by all its processes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder: Path | None = None

    def owns(self, name: str) -> bool:
        """Whether a file directly in the root is not an object but staged there."""
        return name.startswith(_PREFIX)

    @contextmanager
    def file(self, data: bytes | Path) -> Iterator[Path]:
        """Write a file with these bytes, safe on the disk; what the body leaves is removed."""
        path = self._ensure_folder() / f"{_PREFIX}{uuid.uuid4().hex}"
        try:
            with path.open("xb") as file:
                if isinstance(data, Path):
                    with data.open("rb") as source:
                        shutil.copyfileobj(source, file, 1 << 20)
                else:
                    file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the store's lock; the kernel frees that of a process which was killed."""
        path = self._ensure_folder() / f"{_PREFIX}lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _ensure_folder(self) -> Path:
        if self._folder is None:
            self._root.mkdir(parents=True, exist_ok=True)
            self._folder = _staging_folder(self._root)
            _remove_left_behind(self._folder)
        return self._folder


def _staging_folder(root: Path) -> Path:
    beside = root.parent / f".{root.name}.staging"
    with suppress(OSError):
        beside.mkdir(exist_ok=True)
        if beside.stat().st_dev == root.stat().st_dev and os.access(beside, os.W_OK):
            return beside
        beside.rmdir()
    return root


def _remove_left_behind(folder: Path) -> None:
    """Remove what killed writers left; a living one has not been staging for a day."""
    oldest = time.time() - _LEFT_BEHIND_SECONDS
    for path in folder.glob(f"{_PREFIX}*"):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest and path.name != f"{_PREFIX}lock":
                path.unlink()
