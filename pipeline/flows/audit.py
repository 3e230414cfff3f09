"""What answered at a moment of the past, and where it came from: run, parameters, data.

Read from the journal, the recorded releases and the registry. Between a commit and its proof Triton
may answer with the version before or with the new one, and which of them a request met is nowhere
written down: then both are told, neither as certain. The journal says what came after what; its
times are those of the writers' clocks, which differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Final

from pipeline.errors import RequestError, TritonpipeError
from pipeline.flows.history import KILLED, OPEN, Attempt, read_history
from pipeline.flows.journal import COLLECTED, CONFIRMED, REPAIRED, RETIRE, Journal
from pipeline.flows.repository import open_stores
from pipeline.model_config import check_name
from pipeline.registries import Run
from pipeline.settings import Settings

_CARE: Final = frozenset({COLLECTED, REPAIRED})
_ALWAYS: Final = datetime.min.replace(tzinfo=UTC)
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One version that answered, or may have.

    Attributes:
        attempt: When, by whom and from what it was served.
        is_certain: Whether every request of that moment met this version.
        run: The run that trained it, if the registry still has it.
    """

    attempt: Attempt
    is_certain: bool
    run: Run | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What answered at one moment.

    Attributes:
        model: Name in Triton.
        at: The moment, in UTC.
        answered: What answered; nothing if nothing was served, several if a commit was under way or
            clocks disagree.
        problems: What could not be read.
    """

    model: str
    at: str
    answered: tuple[Answered, ...]
    problems: tuple[str, ...]


def audit(model: str, at: datetime, settings: Settings) -> Audit:
    """What answered as ``model`` at a moment.

    Args:
        model: Name in Triton.
        at: The moment, with its time zone.
        settings: Where the servers are.

    Raises:
        RequestError: Nothing was ever served under this name, or the moment is yet to come.
        UnavailableError: The store does not answer.
    """
    from pipeline.registries.mlflow import MlflowRegistry

    now = datetime.now(at.tzinfo)
    if at > now:
        raise RequestError(
            f"{at.isoformat()} is yet to come", hint="without a time zone it is local time"
        )
    store, records = open_stores(settings)
    problems: list[str] = []
    found = read_history(
        store,
        Journal(records),
        check_name(model),
        choose=lambda newest_first: answering(newest_first[::-1], at, problems),
    )
    attempts = found.attempts
    problems += found.problems
    runs: dict[str, Run | None] = {}
    try:
        registry = MlflowRegistry(settings.required("tracking_uri"))
        runs = {a.run_id: registry.run(a.run_id) for a in attempts if a.run_id}
    except TritonpipeError as error:
        problems.append(error.message)
    return Audit(
        model=model,
        at=at.astimezone(UTC).isoformat(),
        answered=tuple(
            Answered(attempt=a, is_certain=len(attempts) == 1, run=runs.get(a.run_id or ""))
            for a in attempts
        ),
        problems=tuple(problems),
    )


def answering(attempts: list[Attempt], at: datetime, problems: list[str]) -> list[Attempt]:
    """The attempts that can have answered at a moment.

    An attempt can answer from its commit on, and until the outcome of the next one that is proven,
    or until its model was taken away; one that failed, until what was before was served again.

    Where times contradict the order of the attempts, a clock was ahead or another one behind: what
    answered by either reading is told. A time that cannot be read lies between those before and
    after it.

    Args:
        attempts: All of them, in the order of the journal, oldest first.
        at: The moment.
        problems: Told what is wrong with the times, in words.
    """
    serving = [a for a in attempts if a.outcome not in _CARE or a.action == RETIRE]
    texts = [text for a in serving for text in (a.started, a.ended or a.started)]
    times = [_moment(text) for text in texts]
    unreadable = dict.fromkeys(
        text for text, time in zip(texts, times, strict=True) if time is None
    )
    problems += [
        f"{text!r} in the journal is no time with a time zone: it counts as any time between those "
        "before and after it"
        for text in unreadable
    ]
    # As early as the order allows, and as late.
    early = list(accumulate((time or _NEVER for time in reversed(times)), min))[::-1]
    late = list(accumulate((time or _ALWAYS for time in times), max))
    by_late, by_early = (_served(serving, reading, at) for reading in (late, early))
    if by_late != by_early and not unreadable:
        problems.append("the journal's times contradict its order then: a clock was wrong")
    return list({attempt.version: attempt for attempt in (*by_late, *by_early)}.values())


def _served(attempts: list[Attempt], times: Sequence[datetime], at: datetime) -> list[Attempt]:
    """What can answer at a moment, the proven one first; ``times`` has two for each attempt."""
    served: list[Attempt] = []
    for attempt, started, ended in zip(attempts, times[::2], times[1::2], strict=True):
        if started > at:
            break
        if attempt.action == RETIRE:
            served = []
            continue
        is_over = attempt.ended is not None and ended <= at
        if attempt.outcome in {OPEN, KILLED} or not is_over:
            served = [*served, attempt]
        elif attempt.outcome == CONFIRMED:
            served = [attempt]
    return served


def _moment(text: str) -> datetime | None:
    """A time of the journal; None if it does not say which moment it is."""
    try:
        found = datetime.fromisoformat(text)
    except (ValueError, TypeError):  # an entry of somebody else's
        return None
    return found if found.tzinfo else None
