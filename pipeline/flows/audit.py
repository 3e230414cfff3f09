"""What answered at a moment of the past, and where it came from: run, parameters, data.

Read from the journal, the recorded releases and the registry. Between a commit and its proof Triton
may answer with the version before or with the new one, and which of them a request met is nowhere
written down: then both are told, neither as certain.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.errors import RequestError, TritonpipeError
from pipeline.flows.history import KILLED, OPEN, Attempt, read_history
from pipeline.flows.journal import COLLECTED, CONFIRMED, REPAIRED, RETIRE, Journal
from pipeline.flows.repository import open_stores
from pipeline.model_config import check_name
from pipeline.registries import Run
from pipeline.settings import Settings


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
        answered: What answered; nothing if nothing was served, several if a commit was under way.
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
    found = read_history(
        store,
        Journal(records),
        check_name(model),
        choose=lambda newest_first: answering(newest_first[::-1], at),
    )
    attempts = found.attempts
    problems = list(found.problems)
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


def answering(attempts: list[Attempt], at: datetime) -> list[Attempt]:
    """The attempts that can have answered at a moment.

    An attempt can answer from its commit on, and until the outcome of the next one that is proven,
    or until its model was taken away; one that failed, until what was before was served again.

    Args:
        attempts: All of them, oldest first.
        at: The moment.
    """
    served: list[Attempt] = []  # what can answer, the proven one first
    for attempt in attempts:
        if _moment(attempt.started) > at:
            break
        if attempt.outcome in {COLLECTED, REPAIRED}:
            if attempt.action == RETIRE:
                served = []
            continue
        is_over = attempt.ended is not None and _moment(attempt.ended) <= at
        if attempt.outcome in {OPEN, KILLED} or not is_over:
            served = [*served, attempt]
        elif attempt.outcome == CONFIRMED:
            served = [attempt]
    newest = {attempt.version: attempt for attempt in served}
    return list(newest.values())


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
