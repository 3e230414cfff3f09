"""Which versions somebody decided against, as the journal tells it."""

from __future__ import annotations

from pipeline.flows.journal import COMMITTING, CONFIRMED, ROLLBACK, JournalEntry, attempts


def taken_back(entries: list[JournalEntry]) -> dict[int, str]:
    """The versions that were rolled back from since the last promotion, and by whom.

    Nobody wishes them back who goes back further; a rollback that failed takes nothing back. One
    that is under way counts.
    """
    found: dict[int, str] = {}
    events = attempts(entries)
    for number in reversed(range(len(events))):
        entry = events[number]
        if entry.action != ROLLBACK:
            break
        is_under_way = entry.event == COMMITTING and number == len(events) - 1
        if entry.previous is not None and (entry.event == CONFIRMED or is_under_way):
            found.setdefault(entry.previous, entry.by)
    return found
