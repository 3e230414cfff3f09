"""Folders as tar files: the same files give the same bytes, whoever packs them and when."""

from __future__ import annotations

import gzip
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

_LEVEL: Final = 2
"""Of compression: it is packed once, and unpacked while a server loads."""

_FILE_MODE: Final = 0o644
_PROGRAM_MODE: Final = 0o755


def write_tar(folder: Path, file: IO[bytes], *, is_compressed: bool) -> None:
    """Write everything below a folder into a tar file, in order of path.

    Owners, times and all rights but that to be executed are left out; links and special files are,
    too.
    """
    with ExitStack() as stack:
        stream: Any = file
        if is_compressed:
            stream = stack.enter_context(gzip.GzipFile("", "wb", _LEVEL, file, mtime=0))
        archive = stack.enter_context(
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT)
        )
        for path in sorted(folder.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                continue
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            if path.is_dir():
                entry.type, entry.mode = tarfile.DIRTYPE, _PROGRAM_MODE
                archive.addfile(entry)
                continue
            status = path.stat()
            entry.size = status.st_size
            entry.mode = _PROGRAM_MODE if status.st_mode & 0o100 else _FILE_MODE
            with path.open("rb") as content:
                archive.addfile(entry, content)
