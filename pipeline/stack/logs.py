"""The logs of the servers: the end of one, and following several at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

_BLOCK: Final = 64 * 1024


def begin_log(log: Path) -> None:
    """Put the log of the previous run aside, so that a log is about one run and stays small."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(f"{log.name}.previous"))


def tail(log: Path, lines: int) -> list[str]:
    """The last lines of a log, reading no more of it than needed; none if there is no log."""
    if lines <= 0 or not log.is_file():
        return []
    with log.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        data = b""
        while position and data.count(b"\n") <= lines:
            step = min(_BLOCK, position)
            position = file.seek(position - step)
            data = file.read(step) + data
    return data.decode(errors="replace").splitlines()[-lines:]


class LogFollower:
    """Reads what is added to logs, also when a server is restarted and its log begins anew."""

    def __init__(self, logs: Mapping[str, Path]) -> None:
        self._logs = dict(logs)
        self._seen: dict[str, tuple[int, int]] = {}
        for part, log in self._logs.items():
            if log.is_file():
                status = log.stat()
                self._seen[part] = (status.st_ino, status.st_size)

    def new_lines(self) -> Iterator[tuple[str, str]]:
        """What was added since the last call: part and line."""
        for part, log in self._logs.items():
            if not log.is_file():
                continue
            with log.open("rb") as file:
                status = os.fstat(file.fileno())
                inode, offset = self._seen.get(part, (status.st_ino, 0))
                if inode != status.st_ino or offset > status.st_size:
                    offset = 0
                file.seek(offset)
                data = file.read()
            # A line that is still being written is left for the next call.
            whole = data[: data.rfind(b"\n") + 1]
            self._seen[part] = (status.st_ino, offset + len(whole))
            for line in whole.decode(errors="replace").splitlines():
                yield part, line


def follow(logs: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Yield what is added to the logs until the caller stops."""
    follower = LogFollower(logs)
    while True:
        yield from follower.new_lines()
        time.sleep(0.25)
