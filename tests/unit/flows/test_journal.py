from __future__ import annotations

import threading

import pytest
from obstore.store import MemoryStore

from pipeline.errors import ConflictError, UnavailableError
from pipeline.flows.journal import (
    Journal,
    JournalEntry,
    open_attempt,
    served_history,
    was_collected,
    was_confirmed,
)
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


CARED = ["gc 1 collected", "fsck 2 repaired"]


@pytest.mark.parametrize("committed", [1, 2, 3, None])
@pytest.mark.parametrize(
    "events",
    [
        ["promote 1 confirmed", "promote 2 committing 1", "promote 2 confirmed"],
        ["promote 1 confirmed", "promote 2 committing 1"],
        ["promote 1 confirmed", "promote 2 committing 1", "promote 3 committing 2",
         "promote 3 confirmed", "rollback 2 committing 3", "rollback 2 failed"],
        ["promote 1 committing", "promote 1 failed"],
    ],
)  # fmt: skip
def test_care_for_the_store_anywhere_changes_nothing_of_what_was_served(
    events: list[str], committed: int | None
) -> None:
    attempts = [event(text) for text in events]
    for place in range(len(events) + 1):
        mixed = [event(text) for text in [*events[:place], *CARED, *events[place:]]]
        assert served_history(mixed, committed) == served_history(attempts, committed)
        assert open_attempt(mixed) == open_attempt(attempts)


def test_the_end_of_a_run_that_was_overtaken_changes_nothing_of_what_overtook_it() -> None:
    overtaken, end = event("promote 2 committing 1"), event("promote 2 failed 1")
    events = [event("promote 1 confirmed"), overtaken, event("promote 3 committing 1")]
    assert open_attempt([*events, end]) == open_attempt(events) == events[-1]
    assert served_history([*events, end], 3) == [1, 3]
    assert served_history([*events, end], 1) == [1]
    proven = [*events, event("promote 3 confirmed 1")]
    for place in (len(events), len(proven)):
        mixed = [*proven[:place], end, *proven[place:]]
        assert open_attempt(mixed) is None
        assert served_history(mixed, 3) == [1, 3]


def test_a_commit_that_was_written_down_late_and_came_to_nothing_is_over() -> None:
    events = [
        event("promote 3 committing 1"),
        event("promote 2 committing 1"),
        event("promote 3 confirmed 1"),
    ]
    assert open_attempt([*events, event("promote 2 failed 1")]) is None


def test_a_collected_version_is_as_if_never_confirmed_until_it_is_again() -> None:
    events = [event("promote 1 committing"), event("promote 1 confirmed"), event("gc 1 collected")]
    assert not was_confirmed(events, 1)
    assert was_collected(events, 1)
    again = [*events, event("promote 1 committing")]
    assert not was_confirmed(again, 1)
    assert not was_collected(again, 1)
    proven = [*again, event("promote 1 confirmed")]
    assert was_confirmed(proven, 1)
    assert not was_collected(proven, 1)


def test_entries_of_older_writers_are_read(journal: Journal) -> None:
    journal._store.put(
        "m/journal/00000001.json",
        b'{"action": "promote", "event": "confirmed", "version": 1, "previous": null, '
        b'"at": "2026-01-01T00:00:00.000+00:00", "by": "a@b", "reason": ""}',
    )
    (entry,) = journal.entries("m")
    assert (entry.version, entry.digest) == (1, "")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"version": "1"}'])
def test_a_damaged_entry_is_an_error_that_names_it_and_the_others_can_be_read(
    journal: Journal, data: bytes
) -> None:
    journal.append("m", action="promote", event="confirmed", version=1, previous=None)
    journal._store.put("m/journal/00000002.json", data)
    journal._store.put("m/journal/notes.txt", b"not an entry")
    with pytest.raises(ConflictError, match=r"journal of m is damaged: .*00000002\.json"):
        journal.entries("m")
    entries, damage = journal.readable_entries("m")
    assert ([e.version for e in entries], len(damage)) == ([1], 1)
    journal.append("m", action="promote", event="confirmed", version=3, previous=None)
    assert journal.entry_numbers("m") == [1, 2, 3]


def test_an_entry_is_read_once_unless_somebody_changes_it(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    get = journal.store.get

    def counted(key: str) -> bytes | None:
        read.append(key)
        return get(key)

    monkeypatch.setattr(journal.store, "get", counted)
    for version in range(1, 4):
        journal.append("m", action="promote", event="confirmed", version=version, previous=None)
        read.clear()
        assert [e.version for e in journal.entries("m")] == list(range(1, version + 1))
        assert read == [f"m/journal/{version:08d}.json"]
    journal.store.put("m/journal/00000002.json", b"{")
    assert len(journal.readable_entries("m")[1]) == 1


def test_many_entries_are_read_at_once_and_come_in_order(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in range(1, 41):
        journal.append("m", action="promote", event="confirmed", version=version, previous=None)
    get, everybody = journal.store.get, threading.Barrier(8, timeout=10)

    def read_together(key: str) -> bytes | None:
        everybody.wait()  # breaks unless eight are under way at once
        return get(key)

    monkeypatch.setattr(journal.store, "get", read_together)
    assert [e.version for e in journal.entries("m")] == list(range(1, 41))


@pytest.mark.parametrize("count", [1, 40])
def test_a_store_that_does_not_answer_is_no_damage(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    for version in range(count):
        journal.append("m", action="promote", event="confirmed", version=version, previous=None)

    def fail(_key: str) -> None:
        raise UnavailableError("the store does not answer")

    monkeypatch.setattr(journal.store, "get", fail)
    with pytest.raises(UnavailableError):
        journal.readable_entries("m")
