"""A store that lists late takes nothing from what is guaranteed: what counts is read by key."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfirmationError
from pipeline.testing.lagging_store import LaggingStore
from pipeline.testing.simulated import World
from pipeline.testing.simulated_repository import SimulatedRepository

LAGS = [0.0, 2.0, 8.0, 60.0]


@pytest.mark.parametrize("lag", LAGS)
def test_a_version_that_fails_makes_room_for_the_proven_one(world: World, lag: float) -> None:
    store = LaggingStore(world)
    scene = SimulatedRepository(world, store)
    scene.publish(1, 2)
    scene.serve(1)
    scene.publish(3, works=False)
    world.sleep(120)
    store.lag = lag
    with pytest.raises(ConfirmationError, match="otherwise than the source model"):
        scene.serve(3)
    assert scene.served == 1
    scene.serve(2)
    assert scene.served == 2


@pytest.mark.parametrize("lag", LAGS)
def test_a_new_model_that_fails_is_taken_away_whole(world: World, lag: float) -> None:
    store = LaggingStore(world)
    world.sleep(120)
    store.lag = lag
    scene = SimulatedRepository(world, store)
    scene.publish(1, works=False)
    with pytest.raises(ConfirmationError):
        scene.serve(1)
    assert not scene.folders(), "Triton serves on what has any object left"
    assert not [key for key in store.snapshot() if key.startswith("m/")]
