"""Which versions a loop must not serve again by itself."""

from __future__ import annotations

import pytest
from obstore.store import MemoryStore

from pipeline.flows.journal import COMMITTING, CONFIRMED, FAILED, PROMOTE, ROLLBACK, Journal
from pipeline.flows.taken_back import taken_back
from pipeline.stores.objects import ObjectStore

MODEL = "m"


@pytest.fixture
def journal() -> Journal:
    """Of a model with version 3 served after 1 and 2."""
    journal = Journal(ObjectStore("memory://records", MemoryStore()))
    for version, previous in ((1, None), (2, 1), (3, 2)):
        attempt(journal, PROMOTE, version, previous)
    return journal


def attempt(
    journal: Journal, action: str, version: int, previous: int | None, outcome: str = CONFIRMED
) -> None:
    for event in (COMMITTING, outcome):
        journal.append(MODEL, action=action, event=event, version=version, previous=previous)


def versions(journal: Journal) -> set[int]:
    return set(taken_back(journal.entries(MODEL)))


def test_who_goes_back_further_wishes_nothing_back(journal: Journal) -> None:
    assert versions(journal) == set()
    attempt(journal, ROLLBACK, 2, 3)
    assert versions(journal) == {3}
    attempt(journal, ROLLBACK, 1, 2)
    assert versions(journal) == {2, 3}
    attempt(journal, PROMOTE, 3, 1)
    assert versions(journal) == set()


def test_a_rollback_under_way_counts_and_one_that_failed_takes_nothing_back(
    journal: Journal,
) -> None:
    attempt(journal, ROLLBACK, 2, 3)
    journal.append(MODEL, action=ROLLBACK, event=COMMITTING, version=1, previous=2)
    assert versions(journal) == {2, 3}
    journal.append(MODEL, action=ROLLBACK, event=FAILED, version=1, previous=2)
    assert versions(journal) == {3}
