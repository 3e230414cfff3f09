from __future__ import annotations

import pytest
from obstore.store import MemoryStore

from pipeline.errors import ConflictError
from pipeline.flows.journal import Journal, JournalEntry, served_history, was_confirmed
from pipeline.stores.objects import ObjectStore


@pytest.fixture
def journal() -> Journal:
    return Journal(ObjectStore("memory://records", MemoryStore()))


def event(text: str) -> JournalEntry:
    """``promote 2 confirmed``, or with the version to return to, as an entry."""
    action, version, outcome, *previous = text.split()
    return JournalEntry(
        action=action,
        event=outcome,
        version=int(version),
        previous=int(previous[0]) if previous else None,
        at="",
        by="",
    )


@pytest.mark.parametrize(
    ("events", "committed", "history"),
    [
        ([], None, []),
        # Killed after the commit; the next run took it for what to return to, or did not.
        (["promote 1 confirmed", "promote 2 confirmed", "rollback 1 committing",
          "promote 3 committing 1", "promote 3 confirmed"], 3, [1, 3]),
        (["promote 1 confirmed", "promote 2 committing", "promote 3 committing 1",
          "promote 3 confirmed"], 3, [1, 3]),
        (["promote 1 confirmed", "promote 2 committing", "promote 2 confirmed",
          "promote 3 committing 2", "promote 3 confirmed"], 3, [1, 2, 3]),
        (["promote 1 confirmed"], 1, [1]),
        (["promote 1 confirmed", "promote 2 confirmed"], 2, [1, 2]),
        (["promote 1 confirmed", "promote 2 failed"], 1, [1]),
        (["promote 1 confirmed", "promote 2 confirmed", "rollback 1 confirmed"], 1, [1]),
        (
            ["promote 1 confirmed", "promote 2 confirmed", "rollback 1 confirmed",
             "promote 3 confirmed"],
            3,
            [1, 3],
        ),
        (["promote 1 confirmed", "promote 1 confirmed"], 1, [1]),
        (["promote 1 confirmed", "promote 2 committing"], 2, [1, 2]),
        (["promote 1 confirmed", "promote 2 committing"], 1, [1]),
        (["promote 1 confirmed", "promote 2 confirmed", "rollback 7 confirmed"], 7, [1, 2, 7]),
        (["promote 1 confirmed", "promote 2 confirmed", "promote 1 confirmed"], 1, [1, 2, 1]),
    ],
)  # fmt: skip
def test_history_is_what_was_served(
    events: list[str], committed: int | None, history: list[int]
) -> None:
    assert served_history([event(text) for text in events], committed) == history


def test_only_a_confirmation_confirms() -> None:
    events = [
        event("promote 1 committing"),
        event("promote 1 failed"),
        event("promote 2 confirmed"),
    ]
    assert not was_confirmed(events, 1)
    assert was_confirmed(events, 2)


def test_entries_come_back_in_order_and_are_never_replaced(journal: Journal) -> None:
    for version in range(1, 13):
        journal.append("m", action="promote", event="confirmed", version=version, previous=None)
    journal.append("m-2", action="promote", event="confirmed", version=99, previous=None)
    assert [e.version for e in journal.entries("m")] == list(range(1, 13))


def test_a_damaged_record_is_an_error_that_names_it(journal: Journal) -> None:
    journal._store.put("m/releases/3/release.json", b'{"manifest": 3}')
    with pytest.raises(ConflictError, match="m/3 is damaged"):
        journal.release("m", 3)
    assert journal.release("m", 4) is None
    assert journal.golden("m", 4) is None
