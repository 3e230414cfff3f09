"""Wakes a watcher from another thread or a signal handler, and tells it to stop."""

from __future__ import annotations

import os
from contextlib import suppress
from multiprocessing.connection import Connection


class Bell:
    """A pipe that becomes readable when it is rung; safe in signal handlers and threads."""

    def __init__(self) -> None:
        reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.connection = Connection(reader, writable=False)
        self.is_stopping = False

    def ring(self) -> None:
        """Have the watcher look at once."""
        with suppress(BlockingIOError):  # it is full: the watcher will look anyway
            os.write(self._writer, b"!")

    def stop(self) -> None:
        """Have the watcher come to its end."""
        self.is_stopping = True
        self.ring()

    def silence(self) -> bool:
        """Take away what was rung so far; whether anything was."""
        is_rung = False
        with suppress(BlockingIOError):
            while os.read(self.connection.fileno(), 4096):
                is_rung = True
        return is_rung
