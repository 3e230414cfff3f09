"""The history of a model, read from journals as several runs leave them."""

from __future__ import annotations

import itertools

import pytest
from obstore.store import MemoryStore

from pipeline.errors import RequestError
from pipeline.flows.history import Attempt, attempts_of, read_history
from pipeline.flows.journal import Journal, JournalEntry
from pipeline.stores.objects import ObjectStore

OUTCOMES = ["committing", "confirmed", "failed", "interrupted", "collected", "repaired"]


def entries(*texts: str) -> list[JournalEntry]:
    """``promote 2 confirmed``, or with the version to return to; one second apart each."""
    found = []
    for second, text in enumerate(texts):
        action, version, event, *previous = text.split()
        found.append(
            JournalEntry(
                action=action,
                event=event,
                version=int(version),
                previous=int(previous[0]) if previous else None,
                at=f"2026-01-01T00:00:{second:02d}.000+00:00",
                by="a@b",
                reason="broken" if event == "failed" else "",
            )
        )
    return found


def told(rows: list[Attempt]) -> list[str]:
    return [f"{row.action} {row.version} {row.outcome}" for row in rows]


@pytest.mark.parametrize(
    ("events", "rows"),
    [
        ([], []),
        (["promote 1 committing", "promote 1 confirmed"], ["promote 1 confirmed"]),
        (["promote 1 committing"], ["promote 1 open"]),
        (
            ["promote 1 committing", "promote 2 committing", "promote 2 failed"],
            ["promote 1 killed", "promote 2 failed"],
        ),
        # The run that finishes a killed one writes the outcome only.
        (["rollback 1 committing", "rollback 1 confirmed"], ["rollback 1 confirmed"]),
        # An outcome whose beginning could not be written down.
        (["promote 1 committing", "promote 2 failed"], ["promote 1 killed", "promote 2 failed"]),
        (
            ["promote 1 committing", "gc 7 collected", "promote 1 confirmed", "fsck 1 repaired"],
            ["promote 1 confirmed", "gc 7 collected", "fsck 1 repaired"],
        ),
    ],
)
def test_commits_are_paired_with_their_outcomes(events: list[str], rows: list[str]) -> None:
    assert told(attempts_of(entries(*events))) == rows


def test_every_event_is_told_once_and_only_the_last_attempt_can_be_open() -> None:
    for events in itertools.product(OUTCOMES, repeat=4):
        texts = [f"promote {n % 2} {event}" for n, event in enumerate(events)]
        rows = attempts_of(entries(*texts))
        times = [row.started for row in rows] + [row.ended for row in rows if row.ended]
        assert {e.at for e in entries(*texts)} == set(times)
        assert [row.outcome == "open" for row in rows[:-1]].count(True) <= (
            rows[-1].outcome in {"collected", "repaired"}
        )


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore("memory://repository", MemoryStore())


@pytest.fixture
def journal() -> Journal:
    return Journal(ObjectStore("memory://records", MemoryStore()))


def served(store: ObjectStore, journal: Journal, committed: int, *events: str) -> list[Attempt]:
    config = f'name: "m" version_policy {{ specific {{ versions: {committed} }} }}'
    store.put("m/config.pbtxt", config.encode())
    for entry in entries(*events):
        journal.append(
            "m",
            action=entry.action,
            event=entry.event,
            version=entry.version,
            previous=entry.previous,
        )
    return list(reversed(read_history(store, journal, "m").attempts))


def test_each_release_was_served_until_the_next_was_proven(
    store: ObjectStore, journal: Journal
) -> None:
    first, broken, second = served(
        store, journal, 2,
        "promote 1 committing", "promote 1 confirmed",
        "promote 3 committing 1", "promote 3 failed 1",
        "promote 2 committing 1", "promote 2 confirmed 1",
    )  # fmt: skip
    assert first.served_until == second.served_from == second.ended
    assert first.served_seconds is not None
    assert broken.served_from is None
    assert second.served_until is None
    assert second.served_seconds is not None, "it is served now"


def test_a_killed_run_was_served_if_the_next_one_found_it_so(
    store: ObjectStore, journal: Journal
) -> None:
    rows = served(
        store, journal, 3,
        "promote 1 committing", "promote 1 confirmed", "promote 2 committing 1",
        "gc 7 collected", "promote 3 committing 2",
    )  # fmt: skip
    first, killed, last = (row for row in rows if row.action == "promote")
    assert (killed.outcome, killed.served_from) == ("killed", killed.started)
    assert first.served_until == killed.started
    assert (last.outcome, last.served_from) == ("open", last.started)


def test_what_is_no_longer_committed_has_no_known_end(store: ObjectStore, journal: Journal) -> None:
    (row,) = served(store, journal, 9, "promote 1 committing", "promote 1 confirmed")
    assert (row.served_until, row.served_seconds) == (None, None)
    assert row.served_from is not None


def test_a_model_that_was_taken_away_was_served_until_then(
    store: ObjectStore, journal: Journal
) -> None:
    first, taken_away, again = served(
        store, journal, 1,
        "promote 1 committing", "promote 1 confirmed",
        "retire 1 collected",
        "promote 1 committing", "promote 1 confirmed",
    )  # fmt: skip
    assert first.served_until == taken_away.started
    assert first.served_seconds is not None
    assert (taken_away.served_from, again.served_until) == (None, None)


def test_the_newest_come_first_and_the_rest_is_counted(
    store: ObjectStore, journal: Journal
) -> None:
    served(store, journal, 1, *(f"promote {n} confirmed" for n in range(1, 8)))
    found = read_history(store, journal, "m", limit=3)
    assert [row.version for row in found.attempts] == [7, 6, 5]
    assert (found.omitted, found.committed) == (4, 1)


def test_damage_is_a_problem_beside_what_can_be_read(store: ObjectStore, journal: Journal) -> None:
    served(store, journal, 1, "promote 1 confirmed")
    journal._store.put("m/journal/00000002.json", b"{")
    journal._store.put("m/releases/1/release.json", b"{")
    store.put("m/config.pbtxt", b"\xff")
    found = read_history(store, journal, "m")
    assert [row.version for row in found.attempts] == [1]
    assert len(found.problems) == 3


def test_an_unknown_name_is_an_error(store: ObjectStore, journal: Journal) -> None:
    with pytest.raises(RequestError, match="nothing was ever served as 'm'"):
        read_history(store, journal, "m")
