"""Server processes that outlive the command that started them, told apart from all others.

A process is known by its number, its start in clock ticks since boot, and the boot: a number that
was given to another process is never mistaken for the server, whatever was done to the clock.
Servers start in sessions of their own, so a server's children are found even when it has died.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from pipeline.errors import StackError

_children: Final[dict[int, subprocess.Popen[bytes]]] = {}
"""Servers that this very process has started: it has to collect them when they end."""

_KILL_PATIENCE: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One process, for as long as the machine runs; see the module."""

    pid: int
    started: int
    boot: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStat:
    """What ``/proc/PID/stat`` says that is needed here."""

    state: str
    session: int
    started: int

    @property
    def is_over(self) -> bool:
        """Whether it has ended and merely was not collected by its parent."""
        return self.state in {"Z", "X"}


def parse_stat(text: str) -> ProcessStat:
    """Read the line of ``/proc/PID/stat``; the program's name in it may contain anything."""
    fields = text[text.rindex(")") + 2 :].split()
    return ProcessStat(state=fields[0], session=int(fields[3]), started=int(fields[19]))


def identify(pid: int) -> ProcessIdentity | None:
    """The identity of a process; None if there is none with this number."""
    stat = _stat(pid)
    return ProcessIdentity(pid=pid, started=stat.started, boot=_boot()) if stat else None


def is_running(identity: ProcessIdentity) -> bool:
    """Whether this process, and not merely one with its number, runs."""
    _collect(identity.pid)
    stat = _stat(identity.pid)
    return stat is not None and not stat.is_over and identify(identity.pid) == identity


def family(identity: ProcessIdentity) -> tuple[int, ...]:
    """The running processes of a server: itself and its children, also when it has died."""
    _collect(identity.pid)
    if identity.boot != _boot():
        return ()
    leader = _stat(identity.pid)
    # The kernel does not reuse the number of a session that has members: another process with
    # this number means that nobody of the old session is left.
    if leader is not None and leader.started != identity.started:
        return ()
    return tuple(pid for pid in psutil.pids() if _belongs(pid, identity))


def age_seconds(identity: ProcessIdentity) -> float:
    """For how long a process has run."""
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return since_boot - identity.started / os.sysconf("SC_CLK_TCK")


def memory_bytes(pids: Sequence[int]) -> int:
    """Resident memory of all these processes together."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_info().rss
        except psutil.Error:
            continue
    return total


def listening_ports(pids: Sequence[int]) -> frozenset[int]:
    """TCP ports that these processes accept connections on."""
    ports: set[int] = set()
    for pid in pids:
        try:
            connections = psutil.Process(pid).net_connections(kind="tcp")
        except psutil.Error:
            continue
        ports.update(c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN)
    return frozenset(ports)


def start(
    command: Sequence[str], *, environment: Mapping[str, str], directory: Path, log: Path
) -> ProcessIdentity:
    """Start a server that survives this process and its terminal, writing into ``log``.

    Raises:
        StackError: The program cannot be run.
    """
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        child = subprocess.Popen(
            command,
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise StackError(f"cannot run {command[0]}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    _children[child.pid] = child
    identity = identify(child.pid)
    if identity is None:
        raise StackError(f"{command[0]} was gone at once")
    return identity


def ending(pid: int) -> str:
    """How a process ended, in words; only known of those that this process started."""
    _collect(pid)
    child = _children.get(pid)
    code = None if child is None else child.returncode
    if code is None:
        return "died"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def stop(identity: ProcessIdentity, *, patience: float) -> None:
    """End a server with all its children; returns when none is left.

    The server is asked first, so that it can end its children in order; what is left after it is
    asked then, and killed when ``patience`` (seconds) is over.

    Raises:
        StackError: A process survived even that.
    """
    asked: set[int] = set()
    kill_at = time.monotonic() + patience
    while members := family(identity):
        now = time.monotonic()
        if now > kill_at + _KILL_PATIENCE:
            raise StackError(f"processes {members} cannot be ended", hint="look at them with ps")
        if now > kill_at:
            _signal(members, signal.SIGKILL)
        else:
            to_ask = {identity.pid} if identity.pid in members else set(members)
            _signal(to_ask - asked, signal.SIGTERM)
            asked |= to_ask
        time.sleep(0.05)


def _signal(pids: Sequence[int] | set[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _collect(pid: int) -> None:
    child = _children.get(pid)
    if child is not None:
        child.poll()


def _belongs(pid: int, identity: ProcessIdentity) -> bool:
    stat = _stat(pid)
    return stat is not None and not stat.is_over and stat.session == identity.pid


def _stat(pid: int) -> ProcessStat | None:
    try:
        return parse_stat(Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
