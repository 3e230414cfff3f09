"""Every attempt to serve something under a name: when, who, what, from which run, how it ended.

Read from the journal and the recorded releases alone, so it works while MLflow and Triton are down.
An attempt is one commit with its outcome; a run that was killed left none.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from pipeline.artifacts import Release
from pipeline.errors import ConflictError, RequestError
from pipeline.flows.journal import (
    COLLECTED,
    COMMITTING,
    CONFIRMED,
    REPAIRED,
    RETIRE,
    Journal,
    JournalEntry,
)
from pipeline.flows.publish import read_state
from pipeline.flows.repository import open_stores
from pipeline.model_config import check_name
from pipeline.settings import Settings
from pipeline.stores import Store

KILLED: Final = "killed"
OPEN: Final = "open"

_READERS: Final = 16
"""Releases that are read at once."""

_OPEN_REASON: Final = "no outcome was written: killed, or still running"
_KILLED_REASON: Final = "no outcome was written; the next run found it so"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to serve a version, or one act of care for it.

    Attributes:
        action: ``promote``, ``rollback``, ``gc`` and so on.
        version: The version it was about.
        outcome: ``confirmed``, ``failed``, ``interrupted``, ``killed``, or ``open`` if the last
            attempt has no outcome yet; ``collected`` or ``repaired`` for acts of care.
        reason: Why it ended so; empty for a success.
        by: Who, as user and host.
        started: When it was committed, in UTC.
        ended: When its outcome was written; None if it has none.
        previous: The version to return to, had it failed.
        digest: Digest of the release; empty if it is not known.
        registered_model: Where the release comes from; empty if it is not known.
        registered_version: Likewise; None if it is not known.
        run_id: The run that trained it; None if there was none or it is not known.
        source: Where its files come from; empty if it is not known.
        together: The releases that were switched as one, ``MODEL/N``; empty for one on its own.
        served_from: When it began to be what clients get; None if it never was.
        served_until: When another one was proven instead, or the model was taken away; None while
            it is served.
        served_seconds: How long it was served, or has been until now; None if it never was, or if
            the end was not written down.
    """

    action: str
    version: int
    outcome: str
    reason: str
    by: str
    started: str
    ended: str | None
    previous: int | None
    digest: str = ""
    registered_model: str = ""
    registered_version: int | None = None
    run_id: str | None = None
    source: str = ""
    together: tuple[str, ...] = ()
    served_from: str | None = None
    served_until: str | None = None
    served_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What happened under one name.

    Attributes:
        model: Triton model.
        committed: The version that the config in the store names; None if there is none.
        attempts: Newest first.
        omitted: How many older ones were left out.
        problems: What could not be read; it is missing above.
    """

    model: str
    committed: int | None
    attempts: tuple[Attempt, ...]
    omitted: int
    problems: tuple[str, ...]


def history(model: str, settings: Settings, *, limit: int | None = None) -> History:
    """What happened under a name, newest first; neither MLflow nor Triton is asked.

    Raises:
        RequestError: Nothing was ever served under this name.
        UnavailableError: The store does not answer.
    """
    store, records = open_stores(settings)
    return read_history(store, Journal(records), check_name(model), limit=limit)


def read_history(
    store: Store,
    journal: Journal,
    model: str,
    *,
    limit: int | None = None,
    choose: Callable[[list[Attempt]], list[Attempt]] = list,
) -> History:
    """The same from stores that are open.

    Args:
        store: The repository.
        journal: Its records.
        model: Triton model.
        limit: How many attempts are given at most.
        choose: Which of all attempts are, newest first: only their releases are read.
    """
    entries, damage = journal.readable_entries(model)
    problems = [f"the journal of {model} is damaged: {text}" for text in damage]
    committed = None
    try:
        committed = read_state(store, model).version
    except ConflictError as error:
        problems.append(error.message)
    if not (entries or problems or committed):
        raise RequestError(
            f"nothing was ever served as {model!r}", hint="see what is: tritonpipe status"
        )
    rows = _with_service(attempts_of(entries), committed, datetime.now(UTC))
    newest = choose(list(reversed(rows)))
    shown = newest if limit is None else newest[:limit]
    releases = _releases(journal, model, {row.version for row in shown}, problems)
    return History(
        model=model,
        committed=committed,
        attempts=tuple(_with_lineage(row, releases[row.version]) for row in shown),
        omitted=len(newest) - len(shown),
        problems=tuple(problems),
    )


def attempts_of(entries: list[JournalEntry]) -> list[Attempt]:
    """The events of a journal as attempts, in order of their beginning."""
    rows: dict[int, Attempt] = {}
    pending: tuple[int, JournalEntry] | None = None
    for place, entry in enumerate(entries):
        if entry.event in {COLLECTED, REPAIRED}:
            rows[place] = _attempt(entry, entry)
            continue
        is_outcome = entry.event != COMMITTING
        if pending and is_outcome and pending[1].version == entry.version:
            rows[pending[0]] = _attempt(pending[1], entry)
            pending = None
            continue
        if pending:
            rows[pending[0]] = _attempt(pending[1], None, outcome=KILLED, reason=_KILLED_REASON)
        pending = None if is_outcome else (place, entry)
        if is_outcome:
            rows[place] = _attempt(entry, entry)
    if pending:
        rows[pending[0]] = _attempt(pending[1], None, outcome=OPEN, reason=_OPEN_REASON)
    return [rows[place] for place in sorted(rows)]


def _attempt(
    start: JournalEntry, end: JournalEntry | None, *, outcome: str = "", reason: str = ""
) -> Attempt:
    return Attempt(
        action=start.action,
        version=start.version,
        outcome=end.event if end else outcome,
        reason=end.reason if end else reason,
        by=start.by if end is None or end.by == start.by else f"{start.by}, ended by {end.by}",
        started=start.at,
        ended=end.at if end else None,
        previous=start.previous,
        digest=(end.digest if end else "") or start.digest,
        together=start.together,
    )


def _with_service(rows: list[Attempt], committed: int | None, now: datetime) -> list[Attempt]:
    """Add when each attempt was what clients got."""
    served = {place for place, _row in enumerate(rows) if _was_served(rows, place, committed)}
    taken_away = {place for place, row in enumerate(rows) if row.action == RETIRE}
    changes = sorted(served | taken_away)
    found = list(rows)
    for place, successor in zip(changes, [*changes[1:], None], strict=True):
        if place not in served:
            continue
        start = rows[place].ended or rows[place].started
        end = None if successor is None else rows[successor].ended or rows[successor].started
        is_now = successor is None and rows[place].version == committed
        found[place] = replace(
            rows[place],
            served_from=start,
            served_until=end,
            served_seconds=_seconds(start, now.isoformat() if is_now else end),
        )
    return found


def _was_served(rows: list[Attempt], place: int, committed: int | None) -> bool:
    row = rows[place]
    if row.outcome == OPEN:
        return row.version == committed
    if row.outcome == KILLED:
        # The next run wrote down what it took for being served.
        later = [r for r in rows[place + 1 :] if r.outcome not in {COLLECTED, REPAIRED}]
        return bool(later) and later[0].previous == row.version
    return row.outcome == CONFIRMED


def _seconds(start: str, end: str | None) -> float | None:
    if end is None:
        return None
    try:
        seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    except (ValueError, TypeError):  # an entry of somebody else's
        return None
    return max(0.0, seconds)  # clocks of two machines differ


def _releases(
    journal: Journal, model: str, versions: set[int], problems: list[str]
) -> dict[int, Release | None]:
    """Recorded releases; one that cannot be read is a problem, not an error."""

    def read(version: int) -> Release | ConflictError | None:
        try:
            return journal.release(model, version)
        except ConflictError as error:
            return error

    with ThreadPoolExecutor(_READERS) as readers:
        found = dict(zip(sorted(versions), readers.map(read, sorted(versions)), strict=True))
    problems += [each.message for each in found.values() if isinstance(each, ConflictError)]
    return {v: None if isinstance(each, ConflictError) else each for v, each in found.items()}


def _with_lineage(row: Attempt, release: Release | None) -> Attempt:
    if release is None or (row.digest and row.digest != release.manifest.digest):
        # What is recorded now was made after this attempt.
        return row
    lineage = release.manifest.lineage
    return replace(
        row,
        digest=release.manifest.digest,
        registered_model=lineage.registered_model,
        registered_version=lineage.registered_version,
        run_id=lineage.run_id,
        source=lineage.source,
    )
