"""Laws of publishers at the same time, in random orders; and that the laws can be broken."""

from __future__ import annotations

import pytest

from pipeline.flows.publication import Candidate
from pipeline.testing import races
from pipeline.testing.prove.entries import Recipe, make_candidate
from pipeline.testing.races import Race
from pipeline.testing.schedule import Schedule
from pipeline.testing.simulated import Killed

SEEDS = range(8)
"""The proof on real servers runs hundreds."""


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Candidate]:
    return {
        (model, version): make_candidate(
            Recipe(model=model, version=version), tmp_path_factory.mktemp("entry")
        )
        for model in ("a", "b")
        for version in (1, 2, 3, 4)
    }


@pytest.mark.parametrize("is_locked", [True, False])
def test_nothing_that_is_not_allowed_happens_in_any_order(
    entries: dict[tuple[str, int], Candidate], is_locked: bool
) -> None:
    problems = [
        p for seed in SEEDS for p in Race(seed=seed, entries=entries, is_locked=is_locked).run()
    ]
    assert problems == []


def test_without_locks_and_conditions_it_does_happen(
    entries: dict[tuple[str, int], Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(races, "WaitingLocks", races.NoLocks)
    assert any(Race(seed=seed, entries=entries, is_locked=True).run() for seed in SEEDS)


def test_the_same_seed_gives_the_same_order() -> None:
    def order(seed: int) -> list[str]:
        schedule, seen = Schedule(seed), []

        def work() -> None:
            for _ in range(10):
                seen.append(schedule.actor)
                schedule.step()

        schedule.run({"a": work, "b": work})
        return seen

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(10)}) > 5


def test_a_killed_actor_does_no_further_step() -> None:
    schedule, steps = Schedule(0), []

    def work() -> None:
        for number in range(10):
            schedule.step()
            steps.append(number)

    endings = schedule.run({"a": work}, kills={"a": 3})
    assert isinstance(endings["a"], Killed)
    assert steps == [0, 1, 2]
