"""What a child process that runs other people's code may use."""

from __future__ import annotations

import errno
import resource
from dataclasses import dataclass

from pipeline.flows.isolation import Mode


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child may use before it is ended, and what it may reach.

    Attributes:
        seconds: Time on the clock.
        cpu_seconds: Processor time of all threads together.
        memory_bytes: Writable memory of each process.
        file_bytes: Size of each file that it writes.
        isolation: How much of the machine is taken out of its reach.
    """

    seconds: float = 900.0
    cpu_seconds: int = 3600
    memory_bytes: int = 16 * 2**30
    file_bytes: int = 8 * 2**30
    isolation: Mode = Mode.AUTO


def impose(limits: Limits) -> None:
    """Limit this process and those that it will start."""
    for kind, soft, hard in (
        # The soft limit sends SIGXCPU, which the parent can tell from other deaths.
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 5),
        (resource.RLIMIT_DATA, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        _, most = resource.getrlimit(kind)
        ceiling = most if most != resource.RLIM_INFINITY else hard
        resource.setrlimit(kind, (min(soft, ceiling), min(hard, ceiling)))


def exceeded(cause: BaseException, limits: Limits) -> str:
    """Which limit an error comes from, in words; empty if from none."""
    text = str(cause)
    if isinstance(cause, MemoryError) or "can't allocate memory" in text or "bad_alloc" in text:
        return f"needs more than the {limits.memory_bytes / 2**30:.3g} GiB of memory allowed"
    if isinstance(cause, OSError) and cause.errno == errno.EFBIG:
        return f"wrote a file larger than the {limits.file_bytes / 2**30:.3g} GiB allowed"
    return ""
