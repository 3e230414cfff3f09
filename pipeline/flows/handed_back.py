"""Takes over the files that a process with other people's code has written.

That process saw little of this machine; the one that reads its files sees all of it. Guarantees:
no link is followed, no pipe waited for and no flood read into memory: a link to our credentials
would be copied into the model repository, and published.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from pipeline.errors import ModelError

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_RESULT_BYTES: Final = 64 * 2**20
_TAIL_BYTES: Final = 64 * 2**10


def expect_plain_files(folder: Path, subject: str) -> None:
    """Refuse everything below a folder that is not a file or a folder of its own.

    Raises:
        ModelError: Names the first that is a link, a pipe, or a second name of a file elsewhere.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            status = Path(parent, name).lstat()
            is_plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
            if not is_plain and not stat.S_ISDIR(status.st_mode):
                raise ModelError(
                    f"{subject} left {name!r}, which is no plain file",
                    hint="the code of the model or of its exporter made it: look at what it does",
                )


def result_of(file: Path) -> str:
    """The text of a small file.

    Raises:
        OSError: It is missing or no plain file.
        ValueError: It is too large, or no text.
    """
    with os.fdopen(_opened(file), "rb") as opened:
        content = opened.read(_RESULT_BYTES + 1)
    if len(content) > _RESULT_BYTES:
        raise ValueError(f"more than {_RESULT_BYTES} bytes")
    return content.decode()


def last_lines_of(file: Path) -> list[str]:
    """The end of a text of any size; nothing if it is no plain file any more."""
    try:
        handle = _opened(file)
    except OSError:
        return []
    with os.fdopen(handle, "rb") as opened:
        opened.seek(max(0, opened.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return opened.read(_TAIL_BYTES).decode(errors="replace").splitlines()


def _opened(file: Path) -> int:
    handle = os.open(file, _OPEN)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(handle)
        raise OSError(f"{file.name} is no plain file")
    return handle
