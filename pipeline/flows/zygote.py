"""Starts children that run a model's code as forks of one process that has the libraries imported.

A fresh interpreter takes seconds to import MLflow, scikit-learn and ONNX; a fork of a process that
has done so takes milliseconds. That process, the zygote, is started with the environment of a
child, never with ours, and touches no model itself. Guarantees: what holds of a child that is a
fresh interpreter holds of a fork; without a zygote that answers, nothing is lost but time.

Whoever can ask the zygote gets a process without walls. So it has no address: it is asked through a
pair of sockets whose other end only the watcher and its promotions hold. See ``docs/isolation.md``.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Final

from pipeline.flows.child_environment import common_environment

_log = logging.getLogger(__name__)

READY: Final = b"ready"
GO: Final = b"go"
MOST_BYTES: Final = 2**17
"""Of a message; a longer one is not sent."""

_PATIENCE_SECONDS: Final = 30.0
"""How long a zygote may take to answer; it does when everything is imported."""

_LONGEST_POLL_SECONDS: Final = 2.0e6
"""What the kernel takes: a poll counts milliseconds in 31 bits."""

_MOST_LAST_WORDS: Final = 300

_CHILD_END_SECONDS: Final = 20.0
"""How long the end of a child may take; it is killed before."""

_END_SECONDS: Final = 5.0
"""How long that of a zygote may take before it is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a fork is to do.

    Attributes:
        job_file: The job, see :mod:`pipeline.flows.worker_main`.
        home: Where it starts.
        environment: Its whole environment.
        exporter: The exporter that it uses, whose libraries are kept from now on; "" for none.
    """

    job_file: str
    home: str
    environment: Mapping[str, str]
    exporter: str = ""

    def to_bytes(self) -> bytes:
        """As a message, which may be longer than what can be sent."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> Request:
        """From a message."""
        return cls(**json.loads(message))


class Zygote:
    """The process, which imports its libraries in the background.

    It ends when this object is closed, or when everybody who could ask it has ended.

    Attributes:
        requests: Where to ask.
        started: When it was, by the monotonic clock.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self) -> None:
        folder = tempfile.gettempdir()
        self.started = time.monotonic()
        command = [sys.executable, "-P", "-s", "-X", "faulthandler"]
        command += ["-m", "pipeline.flows.zygote_main"]
        with ExitStack() as stack:
            self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(self.requests)
            self._errors = stack.enter_context(os.fdopen(os.memfd_create("zygote"), "rb"))
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603  our own module
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    env={**common_environment(os.environ), "TMPDIR": folder},
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            stack.pop_all()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs; one that has ended is reaped."""
        return self._process.poll() is None

    @property
    def failure(self) -> str:
        """How it ended, with its last words; empty while it runs, or if all was in good order."""
        code = self._process.poll() or 0
        if code == 0:
            return ""
        how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
        size = os.fstat(self._errors.fileno()).st_size
        begin = max(0, size - _MOST_LAST_WORDS)
        words = os.pread(self._errors.fileno(), _MOST_LAST_WORDS, begin)
        lines = words.decode(errors="replace").strip().splitlines()
        return f"ended with {how}" + (f": {lines[-1]}" if lines else "")

    def close(self) -> None:
        """End it, also one that hangs; what it has forked goes on."""
        self.requests.close()
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


class ForkedChild:
    """A child of the zygote; its end is told through a socket, and so is the end of ours."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._status: int | None = None

    def await_end(self, seconds: float) -> bool:
        """Wait for its end; False if it still runs after ``seconds``."""
        return self._told(seconds) is not None

    def end(self) -> int:
        """End it and all that it started; gives its exit status."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        status = self._told(_CHILD_END_SECONDS)
        self._connection.close()
        return -signal.SIGKILL if status is None else status

    def _told(self, seconds: float) -> int | None:
        """Its exit status; None if it still runs after ``seconds``."""
        if self._status is None and _is_readable(self._connection, seconds):
            words = b""
            with suppress(ConnectionError):
                words = self._connection.recv(MOST_BYTES)
            # Without a word: the process that watched over it was killed, and it with that one.
            self._status = int(words) if words else -signal.SIGKILL
        return self._status


def forked(requests: socket.socket, request: Request, log: int) -> ForkedChild | None:
    """Have a child forked; None if the zygote has ended, or cannot do it.

    Args:
        requests: Where to ask.
        request: What the child is to do; it has not begun with it where this gives no child.
        log: Descriptor of the file for its output.

    Raises:
        TimeoutError: The zygote does not answer.
        ValueError: The request is too long to be sent.
    """
    message = request.to_bytes()
    if len(message) > MOST_BYTES:
        raise ValueError(f"a request of {len(message)} bytes is not sent")
    with ExitStack() as stack:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(ours)
        try:
            with theirs:
                descriptors = [theirs.fileno(), log]
                socket.send_fds(requests, [message], descriptors, socket.MSG_DONTWAIT)
            is_answered = _is_readable(ours, _PATIENCE_SECONDS)
            if is_answered and ours.recv(MOST_BYTES) == READY:
                ours.send(GO)
                stack.pop_all()
                return ForkedChild(ours)
        except BlockingIOError:  # so many wait already that there is no room for another
            is_answered = False
        except OSError as error:
            _log.debug("the zygote cannot be asked: %s", error)
            is_answered = True
    if not is_answered:
        raise TimeoutError(f"no answer within {_PATIENCE_SECONDS:.0f} s")
    return None


def _is_readable(connection: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(min(seconds, _LONGEST_POLL_SECONDS) * 1000.0))
