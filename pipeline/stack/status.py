"""What is known of a stack, as values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.stack import processes
from pipeline.stack.part import Part
from pipeline.stack.ports import LOOPBACK, PORTS_OF, Ports

PartState = Literal["running", "silent", "died", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStatus:
    """What is known of one server.

    Attributes:
        name: What commands call it.
        title: What people call it.
        state: ``running``; ``silent`` if its process runs and listens nowhere; ``died``;
            ``stopped`` if it was stopped on purpose or never started.
        address: Where it listens, or will listen after the next start.
        pid: Its process, if it runs.
        seconds: For how long it has run.
        memory_bytes: Resident memory of its process and their children.
        log: Its log.
        problem: How it ended and the end of its log, if it died.
    """

    name: str
    title: str
    state: PartState
    address: str
    pid: int | None = None
    seconds: float | None = None
    memory_bytes: int | None = None
    log: Path
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackStatus:
    """What is known of a stack."""

    state_directory: Path
    parts: tuple[PartStatus, ...]

    @property
    def is_up(self) -> bool:
        """Whether every part runs and listens."""
        return all(part.state == "running" for part in self.parts)


def status_of(part: Part, ports: Ports) -> PartStatus:
    """Look at one server now."""
    status = PartStatus(
        name=part.name,
        title=part.title,
        state=part.state(),
        address=f"http://{LOOPBACK}:{getattr(ports, PORTS_OF[part.name][0])}",
        log=part.log,
    )
    identity = part.identity()
    if identity is None:
        return status
    if status.state == "died":
        return replace(status, problem=part.failure().message)
    family = processes.family(identity)
    wanted = {getattr(ports, name) for name in PORTS_OF[part.name]}
    return replace(
        status,
        state="running" if processes.listening_ports(family) >= wanted else "silent",
        pid=identity.pid,
        seconds=processes.age_seconds(identity),
        memory_bytes=processes.memory_bytes(family),
    )
