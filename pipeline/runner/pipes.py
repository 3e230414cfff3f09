"""Talks frames through pipes with a process that may hang, die, or print without end.

Guarantees: every call ends within its deadline; what is printed meanwhile is taken out of its pipe,
so that printing blocks nobody, and only the last few lines are kept. No thread is used: Triton's
Python backend lets other threads run only now and then.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from . import frames

_LINES: Final = 8
_LINE_LETTERS: Final = 300
_PIPE_BYTES: Final = 2**20
_F_SETPIPE_SZ: Final = 1031


class Pipes:
    """Our ends of four pipes: requests, answers, what is printed, and one that only stays open.

    Attributes:
        theirs: The other ends in this order, for the process that is started; close them then.
        lines: The last lines that were printed.
    """

    def __init__(self) -> None:
        """Open all of them."""
        theirs_requests, self._requests = os.pipe()
        self._answers, theirs_answers = os.pipe()
        self._output, theirs_output = os.pipe()
        theirs_life, self._life = os.pipe()
        self.theirs = (theirs_requests, theirs_answers, theirs_output, theirs_life)
        self.lines: deque[str] = deque(maxlen=_LINES)
        for ours in (self._requests, self._answers, self._output):
            os.set_blocking(ours, False)
            with suppress(OSError):  # the user has many pipes already
                fcntl.fcntl(ours, _F_SETPIPE_SZ, _PIPE_BYTES)

    def write(self, pieces: Sequence[bytes | memoryview], deadline: float) -> None:
        """Send the pieces of a frame.

        Raises:
            TimeoutError: The deadline, on the monotonic clock, is over.
            OSError: Nobody reads.
        """
        for piece in pieces:
            view = memoryview(piece)
            while view:
                self._wait(self._requests, select.POLLOUT, deadline)
                view = view[os.write(self._requests, view[:_PIPE_BYTES]) :]

    def read(self, deadline: float) -> frames.Frame:
        """Receive a frame.

        Raises:
            FrameError: What came is none.
            TimeoutError: The deadline is over.
            EOFError: Nobody will write.
        """

        def read(size: int) -> bytearray:
            content = bytearray(size)
            view, place = memoryview(content), 0
            while place < size:
                self._wait(self._answers, select.POLLIN, deadline)
                got = os.readv(self._answers, [view[place:]])
                if not got:
                    raise EOFError
                place += got
            return content

        return frames.read_frame(read)

    def drain(self) -> bool:
        """Keep the last lines of what was printed; False when there can be no more."""
        while True:
            try:
                printed = os.read(self._output, 2**16)
            except OSError:  # nothing now
                return True
            if not printed:
                return False
            for line in printed.decode(errors="replace").splitlines():
                if line.strip():
                    self.lines.append(line.rstrip()[:_LINE_LETTERS])

    def close(self) -> None:
        """Close our ends, which ends the other process."""
        for descriptor in (self._requests, self._answers, self._output, self._life):
            os.close(descriptor)

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        poll.register(self._output, select.POLLIN)
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            found = dict(poll.poll(remaining * 1000))
            if self._output in found and not self.drain():
                poll.unregister(self._output)
            if found.get(descriptor, 0):
                return
