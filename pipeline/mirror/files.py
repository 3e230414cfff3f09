"""Steps on the file system that are whole or not at all, and on disk when they return."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.mirror.records import FileState

_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_COMPILED: Final = "__pycache__"


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Have everything below a folder survive a power cut."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def move(source: Path, target: Path) -> None:
    """Put a file or folder in place in one step; a file may replace one."""
    source.rename(target)
    sync(target.parent)


def exchange(one: Path, other: Path) -> None:
    """Exchange two folders in one step.

    Raises:
        OSError: The file system or the C library cannot; nothing has changed.
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, "this C library cannot exchange two folders") from None
    if call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        reason = f"cannot exchange two folders: {os.strerror(number)}"
        raise OSError(number, reason, str(one), None, str(other))
    sync(one.parent)
    sync(other.parent)


def empty_folder(folder: Path) -> Path:
    """The folder, made anew."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def remove_compiled(folder: Path) -> None:
    """Remove what Python left beside the modules that it imported from here."""
    for cache in list(folder.rglob(_COMPILED)):
        shutil.rmtree(cache)


def file_states(folder: Path) -> dict[str, FileState]:
    """How every file below a folder looks, by its path in the folder; compiled modules aside."""
    return {
        path.relative_to(folder).as_posix(): FileState(
            size=state.st_size, mtime_ns=state.st_mtime_ns
        )
        for path, state in _walk(folder)
        if not path.is_dir() and _COMPILED not in path.parts
    }


def newest_mtime_ns(folder: Path) -> int:
    """The newest modification time below and of a folder; 0 if there is none."""
    if not folder.is_dir():
        return 0
    return max(state.st_mtime_ns for _path, state in _walk(folder))


def _walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in (folder, *folder.rglob("*")):
        yield path, path.stat()
