"""The processes around a model's code that only wait for its end, and then end what it left behind.

Guarantees: when a guard has ended, nothing that was started below it runs any more, detached or
not, unless the guard was killed itself outside of a namespace for processes; it ends with the
status, or by the signal, with which the guarded process ended.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn


def report(work: int, writing: int) -> NoReturn:
    """Wait as the first process of a namespace, and tell the guard how the work ended."""
    while True:
        pid, status = os.wait()
        if pid == work:
            os.write(writing, str(os.waitstatus_to_exitcode(status)).encode())
            os._exit(0)


def guard(inner: int, reading: int) -> NoReturn:
    """Wait for the end, end what is left, and end in the same way."""

    def end(_number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(inner, signal.SIGKILL)

    signal.signal(signal.SIGTERM, end)
    _, status = os.waitpid(inner, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # its number can belong to others now
    code = os.waitstatus_to_exitcode(status)
    with os.fdopen(reading, "rb") as pipe:
        os.set_blocking(pipe.fileno(), False)
        told = pipe.read()
    if code == 0 and told:
        code = int(told)
    _end_descendants()
    _end_as(code)


def _end_descendants() -> None:
    """End what was left behind: as a subreaper, this process is its parent now."""
    while True:
        for pid in _children():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _children() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == os.getpid():
                    found.append(int(entry.name))
    return found


def _end_as(code: int) -> NoReturn:
    if code < 0:
        faulthandler.disable()  # the process that was hit has told its story already
        with suppress(OSError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
