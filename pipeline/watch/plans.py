"""The plan as ``tritonpipe.toml`` says it at this moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from pipeline.configuration import OF_THE_SYSTEM
from pipeline.errors import SettingsError
from pipeline.watch.events import CONFIGURED, Event, Tell
from pipeline.watch.rounds import Plan


class Plans:
    """Reads the file again when it has changed.

    Guarantees: a file that is wrong, or gone, changes nothing and is told once; so is a change of
    what is fixed when a watcher starts, such as addresses.

    Args:
        read: Makes the plan; called at once, and raises what is wrong with the file.
        file: The file.
        tell: Told of changes.

    Raises:
        SettingsError: The file is wrong at the start.
    """

    def __init__(self, read: Callable[[], Plan], file: Path, tell: Tell) -> None:
        self._read = read
        self._file = file
        self._tell = tell
        self._state = self._look()
        self._plan = read()

    def __call__(self) -> Plan:
        """The plan."""
        state = self._look()
        if state != self._state:
            self._state = state
            self._tell(Event(kind=CONFIGURED, at=time.time(), message=self._changed()))
        return self._plan

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    def _changed(self) -> str:
        if self._state is None:
            return f"{self._file} is gone; what it said last holds on"
        try:
            plan = self._read()
        except SettingsError as error:
            return f"{error.message}; what the file said before holds on"
        before, after = self._plan.base, plan.base
        fixed = [name for name in sorted(OF_THE_SYSTEM) if _differ(before, after, name)]
        self._plan = plan
        told = f"{self._file} was read again"
        return told + (f"; start anew for a change of {', '.join(fixed)}" if fixed else "")


def _differ(before: object, after: object, name: str) -> bool:
    return bool(getattr(before, name) != getattr(after, name))
