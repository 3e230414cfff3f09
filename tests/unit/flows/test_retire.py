"""Laws of taking a model away."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any, cast

import pytest

from pipeline.errors import RequestError, TritonpipeError, UnavailableError
from pipeline.flows.claims import Claim, claim_tag, claim_text, claims_of
from pipeline.flows.journal import COLLECTED, RETIRE
from pipeline.flows.progress import silent
from pipeline.flows.publish import read_state
from pipeline.flows.release import reusable_release
from pipeline.flows.retire import take_away
from pipeline.settings import Settings
from pipeline.testing.simulated import Fault, Killed, SimulatedStore, World
from pipeline.testing.simulated_registry import SimulatedRegistry
from pipeline.testing.simulated_repository import MODEL, SimulatedRepository


def registry_that_tells_it() -> SimulatedRegistry:
    registry = SimulatedRegistry()
    for version, claims in ((1, ()), (2, (MODEL, "another"))):
        tags = {claim_tag(name): claim_text(Claim()) for name in claims}
        registry.register(MODEL, version, {"tritonpipe.state": "serving", **tags})
    return registry


@pytest.fixture
def scene(world: World, store: SimulatedStore) -> SimulatedRepository:
    scene = SimulatedRepository(world, store)
    scene.publish(1, 2)
    scene.serve(1, 2)
    return scene


def retire(
    scene: SimulatedRepository, registry: SimulatedRegistry, confirm_seconds: float = 10.0
) -> tuple[int, ...]:
    servers = replace(scene.servers, registry=cast("Any", registry))
    plan = take_away(
        servers,
        MODEL,
        settings=Settings(lock_seconds=0, confirm_seconds=confirm_seconds),
        reason="no wish",
        progress=silent,
    )
    return plan.versions


def test_nothing_of_it_is_left_but_its_records(scene: SimulatedRepository) -> None:
    registry = registry_that_tells_it()
    assert retire(scene, registry) == (1, 2)
    assert scene.served is None
    assert not [key for key in scene.store.snapshot() if key.startswith(f"{MODEL}/")]
    assert claims_of(registry.tags(MODEL, 2)).keys() == {"another"}
    assert registry.tags(MODEL, 2)["tritonpipe.state"] == "serving"
    assert {(e.action, e.reason) for e in scene.entries if e.event == COLLECTED} == {
        (RETIRE, "no wish")
    }
    assert scene.journal.release(MODEL, 2) is not None
    with pytest.raises(RequestError):
        retire(scene, registry)


def test_what_the_registry_could_not_be_told_the_next_run_tells_it(
    scene: SimulatedRepository,
) -> None:
    registry = registry_that_tells_it()
    registry.step = broken_registry
    with pytest.raises(UnavailableError, match="MLflow"):
        retire(scene, registry)
    assert scene.served is None
    registry.step = lambda: None
    assert retire(scene, registry) == ()
    assert claims_of(registry.tags(MODEL, 2)).keys() == {"another"}
    with pytest.raises(RequestError):
        retire(scene, registry)


def broken_registry() -> None:
    raise UnavailableError("MLflow does not answer")


def test_it_returns_when_the_last_server_has_let_go(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = [True, True, False]
    monkeypatch.setattr(
        scene.triton, "is_ready", lambda _model, version: version == 2 and still.pop(0)
    )
    retire(scene, SimulatedRegistry())
    assert still == []


def test_a_server_that_never_lets_go_is_told_and_the_files_are_gone(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene.triton, "is_ready", lambda _model, _version: True)
    with pytest.raises(UnavailableError, match="m is removed, and Triton at simulated"):
        retire(scene, SimulatedRegistry(), confirm_seconds=0.2)
    assert not [key for key in scene.store.snapshot() if key.startswith(f"{MODEL}/")]


def test_afterwards_no_release_counts_as_kept_and_it_can_be_served_anew(
    scene: SimulatedRepository,
) -> None:
    retire(scene, SimulatedRegistry())
    state = read_state(scene.store, MODEL)
    assert [reusable_release(scene.servers, state, v) for v in (1, 2)] == [None, None]
    scene.publish(2)
    scene.serve(2)
    assert scene.served == 2


@pytest.mark.parametrize("fault", list(Fault))
def test_broken_anywhere_it_is_served_whole_or_not_at_all_and_the_next_run_finishes(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    step = 0
    while True:
        step += 1
        scene = SimulatedRepository(world, SimulatedStore(world))
        scene.publish(1, 2)
        scene.serve(1, 2)
        world.break_at(step, fault)
        is_broken = True
        with contextlib.suppress(TritonpipeError, KeyboardInterrupt, Killed):
            retire(scene, SimulatedRegistry())
            is_broken = False
        world.break_at(0, None)
        assert scene.served in {2, None}
        with contextlib.suppress(RequestError):  # nothing was left to do
            retire(scene, SimulatedRegistry())
        assert scene.served is None
        assert not [key for key in scene.store.snapshot() if key.startswith(f"{MODEL}/")]
        if not is_broken:
            break
    assert step > 10
