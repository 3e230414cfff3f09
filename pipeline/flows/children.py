"""Starts the process of a job: a fork of the zygote if there is one, or a fresh interpreter."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

from pipeline.flows.zygote import Request, forked

_log = logging.getLogger(__name__)

GUARD_SECONDS: Final = 10.0
"""How long the guard of a child has for ending all that it started."""

_POLL_SECONDS: Final = 0.02
_zygotes: list[socket.socket] = []
_when_unanswered: list[Callable[[], None]] = []


class Child(Protocol):
    """A process that does a job."""

    def await_end(self, seconds: float) -> bool:
        """Wait for its end; False if it still runs after ``seconds``."""

    def end(self) -> int:
        """End it if it has not ended already, and wait until all that it started is gone.

        Gives its exit status, negative for a signal.
        """


def fork_from(requests: socket.socket, unanswered: Callable[[], None] = lambda: None) -> None:
    """Have all children of this process forked by a zygote, as long as it answers.

    Args:
        requests: Where it is asked.
        unanswered: Called when it hangs.
    """
    _zygotes[:] = [requests]
    _when_unanswered[:] = [unanswered]


def start_child(request: Request, log: int) -> Child:
    """Start one.

    Args:
        request: What it shall do.
        log: Descriptor of the file for its output.
    """
    return _forked(request, log) or FreshChild(request, log)


def _forked(request: Request, log: int) -> Child | None:
    if not _zygotes:
        return None
    try:
        child = forked(_zygotes[0], request, log)
    except ValueError as error:
        _log.info("this child is a fresh interpreter: %s", error)
        return None
    except TimeoutError as error:
        _log.warning("the zygote hangs: %s; children are started as fresh interpreters", error)
        for tell in _when_unanswered:
            tell()
        child = None
    else:
        if child is None:
            _log.info("the zygote has ended: children are started as fresh interpreters")
    if child is None:
        _zygotes.clear()
    return child


class FreshChild:
    """An interpreter of its own."""

    def __init__(self, request: Request, log: int) -> None:
        command = [sys.executable, "-P", "-X", "faulthandler", "-m", "pipeline.flows.worker_main"]
        self._process = subprocess.Popen(  # noqa: S603  our own module
            [*command, request.job_file, str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=request.home,
            env=dict(request.environment),
            start_new_session=True,
        )

    def await_end(self, seconds: float) -> bool:
        """See the protocol; does not reap it."""
        deadline = time.monotonic() + seconds
        options = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while os.waitid(os.P_PID, self._process.pid, options) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def end(self) -> int:
        """See the protocol."""
        # The child is not reaped yet, so its number cannot belong to others.
        with suppress(ProcessLookupError):
            self._process.terminate()  # the guard ends all, even what has left its group
        try:
            return self._process.wait(GUARD_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            return self._process.wait()
