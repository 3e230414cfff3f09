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
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from signal import SIGKILL
from typing import Final

from pipeline.flows.child_environment import common_environment

_log = logging.getLogger(__name__)

READY: Final = b"ready"
GO: Final = b"go"
MOST_BYTES: Final = 2**17
"""Of a message; a longer one is not sent."""

_PATIENCE_SECONDS: Final = 30.0
"""How long a zygote may take to answer; it does when everything is imported."""

_END_SECONDS: Final = 20.0
"""How long the end of a child may take; it is killed before."""


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
        """As a message."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> Request:
        """From a message."""
        return cls(**json.loads(message))


class Zygote:
    """The process, which imports its libraries in the background.

    It ends when this object is closed, or when everybody who could ask it has ended.
    """

    def __init__(self) -> None:
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-P", "-X", "faulthandler", "-m", "pipeline.flows.zygote_main"]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  our own module
                [*command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=common_environment(os.environ),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs; one that has ended is reaped."""
        return self._process.poll() is None

    def close(self) -> None:
        """End it; what it has forked goes on."""
        self.requests.close()
        self._process.terminate()
        self._process.wait()


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
        status = self._told(_END_SECONDS)
        self._connection.close()
        return -SIGKILL if status is None else status

    def _told(self, seconds: float) -> int | None:
        """Its exit status; None if it still runs after ``seconds``."""
        if self._status is None and _is_readable(self._connection, seconds):
            words = b""
            with suppress(ConnectionError):
                words = self._connection.recv(MOST_BYTES)
            # Without a word: the process that watched over it was killed, and it with that one.
            self._status = int(words) if words else -SIGKILL
        return self._status


def forked(requests: socket.socket, request: Request, log: int) -> ForkedChild | None:
    """Have a child forked; None if the zygote is dead, does not answer, or cannot do it.

    Args:
        requests: Where to ask.
        request: What the child is to do; it has not begun with it where this gives None.
        log: Descriptor of the file for its output.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            descriptors = [theirs.fileno(), log]
            message = request.to_bytes()
            socket.send_fds(requests, [message], descriptors, socket.MSG_DONTWAIT)
        if _is_readable(ours, _PATIENCE_SECONDS) and ours.recv(MOST_BYTES) == READY:
            ours.send(GO)
            return ForkedChild(ours)
    except OSError as error:
        _log.debug("the zygote cannot be asked: %s", error)
    except BaseException:
        ours.close()
        raise
    ours.close()
    return None


def _is_readable(connection: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(seconds * 1000.0))
