"""What to return to when a release does not prove itself: what was proven last, never a hope."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.errors import ConflictError
from pipeline.flows.journal import (
    COLLECTED,
    CONFIRMED,
    JournalEntry,
    open_attempt,
    served_history,
    was_confirmed,
)
from pipeline.flows.publish import RepositoryState
from pipeline.flows.release import recorded_release
from pipeline.flows.servers import Servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """What to return to.

    Attributes:
        version: The last proven version; None for a model that never had one.
        config: Text of its config; None likewise.
    """

    version: int | None
    config: str | None


def last_proven(servers: Servers, state: RepositoryState, entries: list[JournalEntry]) -> Fallback:
    """The version that is committed, unless the run that committed it died before proving it.

    A config that is gone says nothing: Triton goes on serving without it, and the journal knows
    what was proven.

    Raises:
        ConflictError: The config was not written by this tool, or a release of several models is
            half way and no journal tells from where.
    """
    attempt = open_attempt(entries)
    if state.config is None:
        return _last_whole(servers, state.model, served_history(entries, None))
    committed = state.versions
    is_unproven = (
        attempt is not None
        and attempt.version in committed
        and (len(committed) > 1 or not was_confirmed(entries, attempt.version))
    )
    if attempt is None or not is_unproven:
        return Fallback(version=state.version, config=state.config)
    if attempt.previous is None:
        return Fallback(version=None, config=None)
    return _recorded(servers, state.model, attempt.previous)


def last_confirmed(entries: list[JournalEntry]) -> int | None:
    """The version that has proven itself last, unless it was taken away since; None if none has.

    A commit that is yet to prove itself does not count, since it may be taken back.
    """
    version = None
    for entry in entries:
        if entry.event == CONFIRMED:
            version = entry.version
        elif entry.event == COLLECTED and entry.version == version:
            version = None
    return version


def _last_whole(servers: Servers, model: str, history: list[int]) -> Fallback:
    for version in reversed(history):
        try:
            return _recorded(servers, model, version)
        except ConflictError:  # collected, or taken away by hand
            continue
    return Fallback(version=None, config=None)


def _recorded(servers: Servers, model: str, version: int) -> Fallback:
    release, _golden = recorded_release(servers, model, version)
    return Fallback(version=version, config=release.config)
