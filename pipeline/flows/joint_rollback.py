"""What several models return to that were released together."""

from __future__ import annotations

from pipeline.errors import ConflictError, RequestError
from pipeline.flows.journal import (
    COMMITTING,
    CONFIRMED,
    ROLLBACK,
    JournalEntry,
    open_attempt,
    served_history,
)
from pipeline.flows.publication import Candidate
from pipeline.flows.release import recorded_release
from pipeline.flows.servers import Servers


def previous_together(servers: Servers, model: str) -> list[Candidate]:
    """What a rollback of ``model`` returns to, if it was released together with others.

    Models that were new in that release are left as they are: nothing else refers to them.

    Returns:
        The previous release of each model; empty if ``model`` was released on its own.

    Raises:
        ConflictError: One of them has moved on since, or its release is no longer whole.
    """
    last = _last_release(servers, model)
    candidates = []
    for name in _models(last):
        entry = _last_release(servers, name)
        if entry.together != last.together:
            raise ConflictError(
                f"{model} was released together with {name}, which has been released anew since",
                hint=f"roll {name} back first, or publish the versions that you want together",
            )
        version = _served_before(servers, name, entry)
        if version is not None:
            release, golden = recorded_release(servers, name, version)
            candidates.append(Candidate(release=release, golden=golden, entry=None))
    return candidates


def _last_release(servers: Servers, model: str) -> JournalEntry:
    """The last event that tells what is served, or is about to be.

    An attempt that was killed before all of its models knew of it has committed nothing.
    """
    entries = servers.journal.entries(model)
    attempt = open_attempt(entries)
    confirmed = [e for e in entries if e.event == CONFIRMED]
    if attempt is not None and _is_known_to_all(servers, attempt):
        return attempt
    if not confirmed:
        raise RequestError(f"{model!r} is not served", hint="see what is: tritonpipe status")
    return confirmed[-1]


def _is_known_to_all(servers: Servers, attempt: JournalEntry) -> bool:
    others = (open_attempt(servers.journal.entries(m)) for m in _models(attempt))
    return all(other is not None and other.together == attempt.together for other in others)


def _models(entry: JournalEntry) -> list[str]:
    return [reference.rpartition("/")[0] for reference in entry.together]


def _served_before(servers: Servers, model: str, last: JournalEntry) -> int | None:
    if last.event == COMMITTING:
        # A rollback that was killed is finished, not followed by its reverse.
        return last.version if last.action == ROLLBACK else last.previous
    history = served_history(servers.journal.entries(model), last.version)
    return next((v for v in reversed(history) if v != last.version), None)
