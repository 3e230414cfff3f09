"""Waiting for a version: what is asked how often, and what is said when it was in vain."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pipeline.errors import ConfirmationError, UnavailableError
from pipeline.flows.confirm import await_ready
from pipeline.testing.simulated import SimulatedStore, World
from pipeline.testing.simulated_repository import SimulatedRepository
from pipeline.triton import VersionState

LOADING = VersionState(state="LOADING", reason="")
READY = VersionState(state="READY", reason="")


class BusyTriton:
    """Serves version 1 of the model ``m`` from one moment on, and is settled from another."""

    http_address = "simulated"

    def __init__(self, world: World, *, ready: float, settled: float) -> None:
        self.world = world
        self.ready_at, self.settled_at = world.now + ready, world.now + settled
        self.asked: list[float] = []
        self.others: dict[str, VersionState] = {}
        self.is_dead = False

    def require_live(self) -> None:
        if self.is_dead:
            raise UnavailableError("Triton does not answer at simulated", hint="start it")

    def is_ready(self, _model: str, _version: int) -> bool:
        return self.world.now >= self.ready_at

    def versions(self, _model: str) -> dict[int, VersionState]:
        self.asked.append(self.world.now)
        return {1: READY} if self.world.now >= self.settled_at else {1: READY, 2: LOADING}

    def all_versions(self) -> dict[str, dict[int, VersionState]]:
        return {model: {1: state} for model, state in self.others.items()}


def wait_for(triton: BusyTriton, store: SimulatedStore, seconds: float = 60.0) -> float:
    scene = SimulatedRepository(triton.world, store)
    scene.publish(1)
    return await_ready(
        cast("Any", (triton,)),
        scene.registered[1][0],
        seconds=seconds,
        known_reasons=("",),
        commit_again=lambda: None,
    )


@pytest.mark.parametrize("ready", [0.0, 0.5, 7.3])
@pytest.mark.parametrize("settles_after", [0.0, 12.6])
def test_the_index_is_asked_once_a_second_and_when_the_version_becomes_ready(
    world: World, store: SimulatedStore, ready: float, settles_after: float
) -> None:
    triton = BusyTriton(world, ready=ready, settled=ready + settles_after)
    waited = wait_for(triton, store)
    assert ready + settles_after - 2.0 < waited < ready + settles_after + 1.2
    assert len(triton.asked) <= 2 + waited


def test_a_server_that_is_gone_is_not_blamed_on_the_version(
    world: World, store: SimulatedStore
) -> None:
    triton = BusyTriton(world, ready=1000.0, settled=0.0)
    triton.is_dead = True
    with pytest.raises(ConfirmationError, match="Triton does not answer at simulated") as caught:
        wait_for(triton, store, seconds=5.0)
    assert "nothing is wrong with the version" in caught.value.hint
    assert "start it" in caught.value.hint


class HungTriton(BusyTriton):
    """Takes connections and answers nothing: each question is given up after a while."""

    def require_live(self) -> None:
        self.world.now += 10.0
        raise UnavailableError("Triton at simulated did not answer within 10 s")

    def is_ready(self, _model: str, _version: int) -> bool:
        self.world.now += 10.0
        return False

    def versions(self, _model: str) -> dict[int, VersionState]:
        self.world.now += 30.0
        raise UnavailableError("it did not answer")


@pytest.mark.parametrize("seconds", [5.0, 15.0, 90.0])
def test_a_server_that_hangs_is_asked_no_more_when_the_time_is_over(
    world: World, store: SimulatedStore, seconds: float
) -> None:
    triton = HungTriton(world, ready=0.0, settled=0.0)
    started = world.now
    with pytest.raises(ConfirmationError, match="did not answer within 10 s"):
        wait_for(triton, store, seconds=seconds)
    assert world.now - started <= seconds + 10 + 30 + 10 + 1


def test_it_is_said_which_loads_hold_up_the_server(world: World, store: SimulatedStore) -> None:
    triton = BusyTriton(world, ready=1000.0, settled=0.0)
    triton.others = {"m": LOADING, "large": LOADING, "huge": LOADING, "small": READY}
    with pytest.raises(ConfirmationError, match=r"still loading huge, large$") as caught:
        wait_for(triton, store, seconds=5.0)
    assert "holds up its polling" in caught.value.hint
    triton.others = {"small": READY}
    with pytest.raises(ConfirmationError, match=r"of the commit$"):
        wait_for(triton, store, seconds=5.0)
