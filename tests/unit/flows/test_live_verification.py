from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import ConfirmationError, ConflictError, RequestError
from pipeline.flows.live_verification import verified
from pipeline.flows.progress import silent
from pipeline.testing.simulated import SimulatedStore, World
from pipeline.testing.simulated_repository import MODEL, SimulatedRepository


@pytest.fixture
def scene(world: World, store: SimulatedStore) -> SimulatedRepository:
    scene = SimulatedRepository(world, store)
    scene.publish(1, 2)
    scene.serve(1, 2)
    return scene


def test_what_answers_as_recorded_is_verified_and_nothing_is_written(
    scene: SimulatedRepository,
) -> None:
    before = scene.store.snapshot(), scene.records.snapshot()
    found = verified(scene.repository, MODEL, progress=silent)
    assert (found.confirmation.version, found.servers) == (2, 1)
    assert found.confirmation.ok
    assert (scene.store.snapshot(), scene.records.snapshot()) == before


def test_another_answer_is_an_error_that_leaves_everything_as_it_is(
    scene: SimulatedRepository,
) -> None:
    before = scene.store.snapshot(), scene.records.snapshot()
    scene.triton.answers[2] = np.full((1, 1), 2.5, np.float32)
    with pytest.raises(ConfirmationError, match=r"differs by 0\.5") as caught:
        verified(scene.repository, MODEL, progress=silent)
    assert f"tritonpipe rollback {MODEL}" in caught.value.hint
    assert (scene.store.snapshot(), scene.records.snapshot()) == before


def test_without_a_record_there_is_nothing_to_compare_with(scene: SimulatedRepository) -> None:
    scene.records.delete([f"{MODEL}/releases/2/golden.npz"])
    with pytest.raises(ConflictError, match="no record"):
        verified(scene.repository, MODEL, progress=silent)


def test_a_model_that_is_not_published_is_named(scene: SimulatedRepository) -> None:
    with pytest.raises(RequestError, match="'nobody'"):
        verified(scene.repository, "nobody", progress=silent)
