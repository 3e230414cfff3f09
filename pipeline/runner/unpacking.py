"""Unpacks the archives of packed models, each once on a machine, into a folder of this user's.

Guarantees: what is used was unpacked whole from an archive with the wanted digest; no file leaves
its folder; several processes may unpack and use at once; it ends within its time; what nobody has
used for a day goes away when something new comes. The folder is nobody else's, or is not used.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

VARIABLE: Final = "TRITONPIPE_PYFUNC_CACHE"
_COMPLETE: Final = "complete"
_CONTENT: Final = "content"
_SCRATCH: Final = "scratch-"
_UNUSED_SECONDS: Final = 24 * 3600.0
_PAUSE_SECONDS: Final = 0.1


class UnpackingError(Exception):
    """The archive is another one, or there is no place for it."""


def cache_folder() -> Path:
    """The folder of this user, made if it is not there.

    Raises:
        UnpackingError: Somebody else has put something of that name there.
    """
    named = os.environ.get(VARIABLE)
    place = Path(tempfile.gettempdir()) / f"tritonpipe-models-{os.getuid()}"
    folder = Path(named).absolute() if named else place.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise UnpackingError(f"{folder} cannot be made: {error}; set {VARIABLE}") from error
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    if not is_ours or status.st_mode & 0o022:
        raise UnpackingError(
            f"{folder} can be written by others; set {VARIABLE} to a folder that cannot"
        )
    return folder


@contextmanager
def unpacked(archive: Path, sha256: str, *, deadline: float, folder: Path) -> Iterator[Path]:
    """The content of an archive, kept from being removed as long as the body runs.

    Args:
        archive: A tar file, compressed or not.
        sha256: What it must be.
        deadline: On the monotonic clock.
        folder: What :func:`cache_folder` gave.

    Raises:
        UnpackingError: It is another archive, it leaves its folder, or time or room is over.
    """
    place = folder / sha256
    with (folder / f"{sha256}.lock").open("a") as lock:
        if not (place / _COMPLETE).exists():
            _lock(lock, fcntl.LOCK_EX, deadline)
            if not (place / _COMPLETE).exists():
                _remove_unused(folder)
                _unpack(archive, sha256, place, deadline)
        _lock(lock, fcntl.LOCK_SH, deadline)
        if not (place / _COMPLETE).exists():
            raise UnpackingError(f"{place} was removed while it was waited for")
        os.utime(place / _COMPLETE)
        yield place / _CONTENT


def extract_all(file: IO[bytes], place: Path, *, name: str, deadline: float) -> None:
    """Unpack a tar file, compressed or not.

    Raises:
        UnpackingError: It is damaged, it leaves its folder, or time or room is over.
    """
    try:
        with tarfile.open(fileobj=file, mode="r|*") as entries:
            for entry in entries:
                if time.monotonic() > deadline:
                    raise UnpackingError(f"unpacking {name} took too long")
                entries.extract(entry, place, filter="data")
    except (OSError, tarfile.TarError, zlib.error, EOFError) as error:
        raise UnpackingError(f"{name} cannot be unpacked: {error}") from error


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A folder for the files of one process; if that is killed, the next one removes it."""
    for left in folder.glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            _if_nobody_uses(left)
    place = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=folder))
    descriptor = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(descriptor)


def _if_nobody_uses(left: Path) -> None:
    descriptor = os.open(left, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(left, ignore_errors=True)
    finally:
        os.close(descriptor)


def _unpack(archive: Path, sha256: str, place: Path, deadline: float) -> None:
    shutil.rmtree(place, ignore_errors=True)
    try:
        (place / _CONTENT).mkdir(parents=True)
        with archive.open("rb") as file:
            _expect(file, sha256, archive.name)
            extract_all(file, place / _CONTENT, name=archive.name, deadline=deadline)
        (place / _COMPLETE).touch()
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)
        raise UnpackingError(f"{archive.name} cannot be unpacked: {error}") from error
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def _expect(file: IO[bytes], sha256: str, name: str) -> None:
    if hashlib.file_digest(file, "sha256").hexdigest() != sha256:  # type: ignore[arg-type]
        raise UnpackingError(f"{name} is not the archive that was packed")
    file.seek(0)


def _lock(lock: IO[str], kind: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise UnpackingError("another process has been unpacking it for too long") from None
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def _remove_unused(folder: Path) -> None:
    for marker in folder.glob(f"*/{_COMPLETE}"):
        with suppress(OSError), (folder / f"{marker.parent.name}.lock").open("a") as lock:
            if time.time() - marker.stat().st_mtime > _UNUSED_SECONDS:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                marker.unlink()
                shutil.rmtree(marker.parent, ignore_errors=True)
