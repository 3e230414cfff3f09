"""What can have answered at a moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.flows.audit import answering
from pipeline.flows.history import KILLED, Attempt
from pipeline.flows.journal import COLLECTED, CONFIRMED, FAILED, GC, PROMOTE, RETIRE, ROLLBACK

START = datetime(2026, 11, 17, 14, 0, tzinfo=UTC)


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


def attempt(
    version: int,
    begun: float,
    ended: float | None,
    outcome: str = CONFIRMED,
    action: str = PROMOTE,
) -> Attempt:
    return Attempt(
        action=action,
        version=version,
        outcome=outcome,
        reason="",
        by="eve@host",
        started=minute(begun).isoformat(),
        ended=None if ended is None else minute(ended).isoformat(),
        previous=None,
    )


def versions(attempts: list[Attempt], at: float) -> set[int]:
    problems: list[str] = []
    found = {found.version for found in answering(attempts, minute(at), problems)}
    assert problems == []
    return found


def test_the_proven_version_answers_until_the_next_one_is_committed() -> None:
    attempts = [attempt(1, 1, 2), attempt(2, 5, 6)]
    assert versions(attempts, 0) == set()
    assert versions(attempts, 3) == {1}
    assert versions(attempts, 5.5) == {1, 2}
    assert versions(attempts, 6) == {2}
    assert versions(attempts, 60) == {2}


def test_one_that_failed_may_have_answered_until_the_way_back_was_gone() -> None:
    attempts = [attempt(1, 1, 2), attempt(2, 5, 6, FAILED)]
    assert versions(attempts, 5.5) == {1, 2}
    assert versions(attempts, 7) == {1}


def test_a_rollback_is_an_attempt_like_any_other() -> None:
    attempts = [attempt(1, 1, 2), attempt(2, 5, 6), attempt(1, 8, 9, action=ROLLBACK)]
    assert versions(attempts, 8.5) == {1, 2}
    assert versions(attempts, 10) == {1}


def test_after_a_run_that_was_killed_both_may_answer_until_something_is_proven() -> None:
    attempts = [attempt(1, 1, 2), attempt(2, 5, None, KILLED), attempt(3, 8, 9)]
    assert versions(attempts, 7) == {1, 2}
    assert versions(attempts, 9) == {3}


def test_what_is_taken_away_answers_no_more_and_garbage_changes_nothing() -> None:
    attempts = [
        attempt(1, 1, 2),
        attempt(2, 3, 4),
        attempt(1, 5, 5, COLLECTED, GC),
        attempt(2, 7, 7, COLLECTED, RETIRE),
    ]
    assert versions(attempts, 6) == {2}
    assert versions(attempts, 8) == set()


class TestClocks:
    """What the times say where they contradict the journal, or nothing."""

    AHEAD = (attempt(1, 0, 1), attempt(2, 12, 13), attempt(3, 9, 10))

    @pytest.mark.parametrize(
        ("at", "expected"), [(8, {1}), (9.5, {1, 2, 3}), (11, {1, 3}), (13, {3})]
    )
    def test_a_writer_with_another_clock_makes_what_answered_uncertain(
        self, at: float, expected: set[int]
    ) -> None:
        problems: list[str] = []
        found = answering(list(self.AHEAD), minute(at), problems)
        assert {each.version for each in found} == expected
        assert any("clock" in text for text in problems) == (9 <= at < 13)

    @settings(max_examples=100, deadline=None)
    @given(others=st.lists(st.floats(-1000, 1000), max_size=5), since=st.floats(0, 100))
    def test_the_last_one_that_its_own_clock_calls_proven_is_told_whatever_others_say(
        self, others: list[float], since: float
    ) -> None:
        attempts = [attempt(n, begun, begun + 1) for n, begun in enumerate(others, start=1)]
        last = attempt(99, 5, 6)
        found = answering([*attempts, last], minute(6 + since), [])
        assert 99 in {each.version for each in found}

    @pytest.mark.parametrize("text", ["2026-11-17T14:05:00", "yesterday", ""])
    def test_a_time_that_says_nothing_may_be_any_between_its_neighbours(self, text: str) -> None:
        unknown = replace(attempt(2, 5, 6), started=text, ended=text)
        attempts = [attempt(1, 1, 2), unknown, attempt(3, 9, 10)]
        for at, expected in ((1.5, {1}), (3, {1, 2}), (10, {3})):
            problems: list[str] = []
            found = answering(attempts, minute(at), problems)
            assert {each.version for each in found} == expected
            assert [repr(text) in problem for problem in problems] == [True]

    def test_acts_of_care_say_nothing_of_clocks(self) -> None:
        attempts = [attempt(1, 1, 4), attempt(1, 3, 3, COLLECTED, GC), attempt(2, 5, 6)]
        assert versions(attempts, 4.5) == {1}


@settings(max_examples=100, deadline=None)
@given(
    outcomes=st.lists(st.sampled_from([CONFIRMED, FAILED, KILLED]), min_size=1, max_size=6),
    at=st.floats(0, 30),
)
def test_the_version_proven_last_is_always_among_them(outcomes: list[str], at: float) -> None:
    attempts = [
        attempt(n, 4 * n, None if outcome == KILLED else 4 * n + 1, outcome)
        for n, outcome in enumerate(outcomes, start=1)
    ]
    proven = [
        a.version for a in attempts if a.outcome == CONFIRMED and a.ended and minute(at).isoformat()
        and datetime.fromisoformat(a.ended) <= minute(at)
    ]  # fmt: skip
    if proven:
        assert proven[-1] in versions(attempts, at)
