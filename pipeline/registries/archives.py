"""What an archive would unpack to, told from its directory: nothing of it is unpacked.

``.pt2``, ``.pth``, ``.keras``, ``.skops`` and ``.npz`` files are zip archives. Guarantees: an
archive without a problem names no file outside of where it is unpacked, and unpacks to a size that
its own size makes plausible, whatever its entries share. Readers stop at the sizes that the
directory declares, so a directory that lies gives an error and no flood.
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

MOST_ENTRIES: Final = 100_000
MOST_RATIO: Final = 100
"""Unpacked size over packed size, of archives that unpack to more than …"""

FREE_BYTES: Final = 2**30
"""… this much. Weights shrink by a tenth; zeros can shrink by 1,000."""

MOST_UNPACKED_BYTES: Final = 256 * 2**30

_ARCHIVES: Final = frozenset({".zip", ".pt2", ".keras", ".skops", ".npz"})
_BEGINNING: Final = b"PK\x03\x04"
_END: Final = b"PK\x05\x06"
_END_BYTES: Final = 22
_LARGE_LOCATOR: Final = b"PK\x06\x07"
_LARGE_LOCATOR_BYTES: Final = 20
_LARGE_END_BYTES: Final = 56
_MOST_COMMENT: Final = 2**16
_MOST_DIRECTORY_BYTES: Final = 64 * 2**20
_SYMBOLIC_LINK: Final = 0o120000
_KIND_OF_FILE: Final = 0o170000


def archive_problem(file: Path) -> str:
    """What is wrong with an archive, the end of a sentence; empty for all other files."""
    with file.open("rb") as opened:
        is_archive = opened.read(len(_BEGINNING)) == _BEGINNING
        if not is_archive and file.suffix.lower() not in _ARCHIVES:
            return ""
        size = opened.seek(0, 2)
        try:
            if _directory_bytes(opened, size) > _MOST_DIRECTORY_BYTES:
                return "is an archive with a directory that is too large to be read"
            with zipfile.ZipFile(opened) as archive:
                return _problem(archive.infolist(), size)
        except (
            zipfile.BadZipFile,
            struct.error,
            ValueError,
            OSError,
            NotImplementedError,
        ) as error:
            return f"is no readable archive: {error}"


def _problem(entries: list[zipfile.ZipInfo], size: int) -> str:
    if len(entries) > MOST_ENTRIES:
        return f"is an archive of {len(entries)} files, at most {MOST_ENTRIES} are unpacked"
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MOST_UNPACKED_BYTES or (unpacked > FREE_BYTES and unpacked > MOST_RATIO * size):
        return f"is an archive of {size} bytes that would unpack to {unpacked / 2**30:.3g} GiB"
    for entry in entries:
        path = PurePosixPath(entry.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            return f"is an archive with the file {entry.filename!r}, which is outside of it"
        if (entry.external_attr >> 16) & _KIND_OF_FILE == _SYMBOLIC_LINK:
            return f"is an archive with the link {entry.filename!r}"
    return ""


def _directory_bytes(opened: BinaryIO, size: int) -> int:
    """Size of the directory, which reading it would take into memory."""
    start = max(0, size - _MOST_COMMENT - _END_BYTES)
    opened.seek(start)
    tail = opened.read()
    found = tail.rfind(_END)
    if found < 0:
        raise zipfile.BadZipFile("it has no directory at its end")
    number: int = struct.unpack_from("<I", tail, found + 12)[0]
    locator = tail[max(0, found - _LARGE_LOCATOR_BYTES) : found]
    if number == 2**32 - 1 and locator.startswith(_LARGE_LOCATOR):
        opened.seek(struct.unpack_from("<Q", locator, 8)[0])
        large: int = struct.unpack_from("<Q", opened.read(_LARGE_END_BYTES), 40)[0]
        return large
    return number
