"""Says why a model's code failed, where the error itself does not.

A limit, a wall or another package version shows up as whatever error the library on top of it
raises. Guarantees: an error that was expected keeps its words; what is added is what was found.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from pipeline import errors
from pipeline.flows.isolation import Entered
from pipeline.flows.limits import Limits, exceeded
from pipeline.flows.pins import WITH_ITS_OWN, described, differences, wheel_of

LIMITS_HINT: Final = "load and convert the model by hand and watch what it does and uses"
WALLS_HINT: Final = (
    "log everything that the model needs with it; if you trust it, TRITONPIPE_ISOLATION=off lets "
    "it reach what you can reach"
)
_LINES: Final = 20
"""Lines of a process's output that an error shows."""

_NO_NETWORK: Final = ("Network is unreachable", "name resolution", "Name or service not known")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A :class:`pipeline.errors.TritonpipeError` on its way to the parent."""

    kind: str
    message: str
    hint: str


def failure_of(
    error: Exception, *, subject: str, limits: Limits, entered: Entered, model: Path | None
) -> Failure | None:
    """The error that the parent raises; None for one that nobody expected.

    Args:
        error: What was raised.
        subject: What was being done to which model.
        limits: What the process could use.
        entered: What it could reach.
        model: Folder of the logged model; None if none was loaded.
    """
    for cause in _causes(error):
        words = exceeded(cause, limits)
        if words:
            return Failure(kind="ModelError", message=f"{subject} {words}", hint=LIMITS_HINT)
        words = _met_a_wall(cause, entered)
        if words:
            return Failure(kind="ModelError", message=f"{_told(error, subject)}; {words}",
                           hint=WALLS_HINT)  # fmt: skip
    if not isinstance(error, errors.TritonpipeError):
        return None
    hint = error.hint
    if model is not None and isinstance(error, errors.ModelError):
        hint = "; ".join([part for part in (_versions_hint(error, model), hint) if part])
    return Failure(kind=type(error).__name__, message=error.message, hint=hint)


def death_of(
    subject: str, limits: Limits, status: int | None, lines: Sequence[str]
) -> errors.ModelError:
    """The error for a process that ended without an outcome.

    Args:
        subject: What was being done to which model.
        limits: What the process could use.
        status: Its exit status, negative for a signal; None if it took too long.
        lines: What it said last.
    """
    message = f"{subject} {_cause_of_death(limits, status)}"
    if lines:
        message += "; its last output:\n" + "\n".join(lines[-_LINES:])
    return errors.ModelError(message, hint=LIMITS_HINT)


def _cause_of_death(limits: Limits, status: int | None) -> str:
    if status is None:
        return f"was ended after {limits.seconds:g} s, the time allowed"
    if status >= 0:
        return f"failed unexpectedly with exit status {status}"
    number = -status
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    if number == signal.SIGXCPU:
        return f"was ended after {limits.cpu_seconds} s of processor time, the most allowed"
    if number == signal.SIGKILL:
        return f"was ended by {name}: most often the machine or container ran out of memory"
    return f"crashed with {name}"


def _told(error: Exception, subject: str) -> str:
    if isinstance(error, errors.TritonpipeError):
        return error.message
    return f"{subject} failed: {type(error).__name__}: {error}"


def _met_a_wall(cause: BaseException, entered: Entered) -> str:
    """What the code asked for that is out of its reach, in words; empty if nothing."""
    text = str(cause)
    number = cause.errno if isinstance(cause, OSError) else None
    if entered.level.network and (
        number == errno.ENETUNREACH or any(words in text for words in _NO_NETWORK)
    ):
        return "the model's code asked for the network, which it cannot reach while it is exported"
    if entered.level.files and number == errno.EROFS:
        return "the model's code wrote to a folder that is not its own"
    if isinstance(cause, FileNotFoundError) and isinstance(cause.filename, (str, bytes)):
        name = os.fsdecode(cause.filename)
        folder = entered.hides(Path(name))
        if folder is not None:
            return f"the model's code asked for {name}; it sees nothing of {folder} but itself"
    return ""


def _versions_hint(error: errors.ModelError, model: Path) -> str:
    """Which packages differ from those of the training, or which one is missing."""
    for cause in _causes(error):
        if isinstance(cause, ModuleNotFoundError) and cause.name and not _is_here(cause.name):
            package = wheel_of(cause.name, model)
            return f"pip install {package}, or {WITH_ITS_OWN}" if package else ""
    if all(isinstance(cause, errors.TritonpipeError) for cause in _causes(error)):
        return ""  # found by an exporter, which knows better; no library has failed
    found = differences(model)
    return f"{described(found)}; {WITH_ITS_OWN}; or log the model again" if found else ""


def _is_here(module: str) -> bool:
    """Whether its package is installed: then it is the version that lacks the module."""
    return find_spec(module.partition(".")[0]) is not None


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or cause.__context__
