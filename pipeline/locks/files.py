"""Locks for publishers on one machine: advisory locks of the kernel on files.

The kernel frees the lock of a process that was killed, at once. Publishers on other machines are
not held off, unless the folder is on a file system that shares such locks.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pipeline.errors import ConflictError, SettingsError
from pipeline.locks import WAIT_HINT, Held, still_held_by
from pipeline.locks.holder import this_process

_RETRY_SECONDS: Final = 0.1
_LONGEST_NAME: Final = 1024


class FileLocks:
    """A :class:`pipeline.locks.Locks` with one file per model in ``folder``.

    Args:
        folder: Where the files are; repositories may share it.
        repository: URL of the repository whose models these are.
    """

    def __init__(self, folder: Path, *, repository: str) -> None:
        self._folder = folder
        self._suffix = hashlib.sha256(repository.rstrip("/").encode()).hexdigest()[:12]

    @contextmanager
    def hold(self, model: str, *, seconds: float, tell: Callable[[str], None]) -> Iterator[Held]:
        """Hold the lock of a model while the body runs."""
        path = self._folder / f"{model}-{self._suffix}.lock"
        descriptor = _open(path)
        try:
            _wait(descriptor, path, model, seconds, tell)
            # The name is for those who wait; on a full disk it is missing, and the lock holds.
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, this_process().encode(), 0)
            yield _HeldFile()
        finally:
            os.close(descriptor)


class _HeldFile:
    def require_held(self) -> None:
        """The kernel takes such a lock from nobody who lives."""


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(
        f"cannot keep locks in {path.parent}: {error.strerror}",
        hint="set TRITONPIPE_LOCK to a folder on a local disk that every publisher on this machine "
        "can write",
    )


def _wait(
    descriptor: int, path: Path, model: str, seconds: float, tell: Callable[[str], None]
) -> None:
    deadline = time.monotonic() + seconds
    is_told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, _LONGEST_NAME, 0).decode(errors="replace")
        except OSError as error:  # a network file system without locks
            raise _unusable(path, error) from error
        else:
            return
        if time.monotonic() >= deadline:
            raise ConflictError(still_held_by(model, holder, seconds), hint=WAIT_HINT)
        if not is_told:
            is_told = True
            tell(f"waiting for {holder or 'another publisher'}")
        time.sleep(_RETRY_SECONDS)
