"""One server of the stack: how it is started, watched and ended, whichever server it is.

Guarantees: a part's process is on record before anything else happens, so a later command finds
it; a part is called ready only when its own process listens on its ports, never because another
program answers there; an error says how the process ended and ends with the end of its log.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pipeline.errors import StackError
from pipeline.interrupts import deferred_interrupts
from pipeline.serialization import from_json, to_json
from pipeline.stack import logs, processes
from pipeline.stack.ports import LOOPBACK
from pipeline.stack.processes import ProcessIdentity
from pipeline.stack.state import StateDirectory, write_json

State = Literal["running", "died", "stopped"]
START_PATIENCE: Final = 180.0
"""Seconds; the first start after an installation reads a gigabyte from a cold disk."""

_TAIL_LINES: Final = 20
_LINE_LENGTH: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a part is started.

    Attributes:
        command: Program and arguments; never with a secret, since everybody can read them.
        environment: All of its environment; nothing is inherited.
        directory: Its working directory.
        ports: On which it will listen.
        answers: Whether it does what it is for; asked only once it listens.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    ports: tuple[int, ...]
    answers: Callable[[], bool]


class Part:
    """One server; ``name`` is what commands call it, ``title`` what people do."""

    def __init__(
        self, state: StateDirectory, name: str, title: str, *, stop_patience: float
    ) -> None:
        self.name = name
        self.title = title
        self.log = state.log(name)
        self._record = state.record(name)
        self._stop_patience = stop_patience

    def identity(self) -> ProcessIdentity | None:
        """The process that was last started for this part, unless it was stopped on purpose."""
        try:
            recorded = json.loads(self._record.read_text())
        except FileNotFoundError:
            return None
        identity: ProcessIdentity = from_json(ProcessIdentity, recorded)
        return identity

    def state(self) -> State:
        """Whether it runs, died, or was stopped on purpose or never started."""
        identity = self.identity()
        if identity is None:
            return "stopped"
        return "running" if processes.is_running(identity) else "died"

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self.state() == "running"

    def start(self, launch: Launch) -> None:
        """Start it, after ending what an earlier process of it may have left behind.

        Raises:
            StackError: The program cannot be run.
        """
        self.stop()
        logs.begin_log(self.log)
        with deferred_interrupts():
            identity = processes.start(
                launch.command,
                environment=launch.environment,
                directory=launch.directory,
                log=self.log,
            )
            write_json(self._record, to_json(identity))

    def wait_until_ready(self, launch: Launch, *, patience: float = START_PATIENCE) -> None:
        """Return when it listens and answers.

        Raises:
            StackError: It ended, or did not answer within ``patience`` seconds.
        """
        deadline = time.monotonic() + patience
        identity = self.identity()
        while True:
            if identity is None or not processes.is_running(identity):
                raise self.failure()
            listening = processes.listening_ports(processes.family(identity))
            if listening >= set(launch.ports) and launch.answers():
                return
            if time.monotonic() > deadline:
                raise StackError(
                    f"{self.title} did not answer within {patience:.0f} s:\n{self.last_words()}",
                    hint=f"tritonpipe stack logs {self.name}",
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """End it with all its children; does nothing if it does not run."""
        identity = self.identity()
        if identity is not None:
            processes.stop(identity, patience=self._stop_patience)
            self._record.unlink(missing_ok=True)

    def stop_unless_died(self) -> None:
        """End it; one that has ended by itself stays on record as having died."""
        identity = self.identity()
        if identity is not None and processes.is_running(identity):
            self.stop()
        elif identity is not None:
            processes.stop(identity, patience=self._stop_patience)

    def ending(self) -> str:
        """How its process ended, in words."""
        identity = self.identity()
        return processes.ending(identity.pid) if identity else "was stopped"

    def last_words(self) -> str:
        """The end of its log."""
        lines = logs.tail(self.log, _TAIL_LINES)
        return "\n".join(f"  | {line[:_LINE_LENGTH]}" for line in lines) or "  | (its log is empty)"

    def failure(self) -> StackError:
        """The error that says how it ended."""
        return StackError(
            f"{self.title} {self.ending()}; the end of its log:\n{self.last_words()}",
            hint=f"tritonpipe stack logs {self.name} -n 200",
        )


def http_status(
    port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Ask a server on loopback; (0, b"") if it does not answer. No proxy is ever used."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        length = {"Content-Length": "0"} if method != "GET" else {}
        connection.request(method, path, headers={**length, **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()
