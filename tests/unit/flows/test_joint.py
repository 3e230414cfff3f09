"""Laws of releases of several models, under a fault at every single step.

The scene is an ensemble of two steps, ``clean`` and ``score``. Whatever happens, a request that
arrives at any moment must meet both steps of one release.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from pipeline.artifacts import Release
from pipeline.ensembles import NEWEST, pinned, steps_of
from pipeline.errors import ConfirmationError, ConflictError, TritonpipeError, UnavailableError
from pipeline.flows.joint import release_together
from pipeline.flows.joint_rollback import previous_together
from pipeline.flows.journal import PROMOTE, ROLLBACK, Journal
from pipeline.flows.locking import ENSEMBLES
from pipeline.flows.progress import silent
from pipeline.flows.publication import Candidate, publish_and_serve
from pipeline.flows.publish import read_state
from pipeline.flows.servers import Servers
from pipeline.manifest import FileDigest, Lineage, Manifest
from pipeline.model_config import served_versions
from pipeline.samples import Samples
from pipeline.settings import Settings
from pipeline.testing.late_triton import LateTriton
from pipeline.testing.simulated import (
    DamagedReads,
    Fault,
    Killed,
    SimulatedLocks,
    SimulatedStore,
    SimulatedTriton,
    World,
)

MODELS = ("clean", "score", "whole")
ENSEMBLE = """
ensemble_scheduling {
  step { model_name: "clean" model_version: -1 input_map { key: "x" value: "x" }
         output_map { key: "y" value: "cleaned" } }
  step { model_name: "score" model_version: -1 input_map { key: "x" value: "cleaned" }
         output_map { key: "y" value: "y" } } }
"""
TENSORS = """
input { name: "x" data_type: TYPE_FP32 dims: 1 } output { name: "y" data_type: TYPE_FP32 dims: 1 }
"""


class WatchedStore(SimulatedStore):
    """Looks after every write at what a request to the ensemble would meet."""

    met: set[frozenset[int]]

    def _written(self, key: str, *, done: bool) -> bool:
        done = super()._written(key, done=done)
        self.met.add(self.versions_met())
        return done

    def versions_met(self) -> frozenset[int]:
        objects = self.snapshot()
        whole = objects.get("whole/config.pbtxt")
        if whole is None:
            return frozenset()
        met = set()
        for step in steps_of(whole.decode()):
            config = objects.get(f"{step.model}/config.pbtxt")
            served = () if config is None else served_versions(config.decode())
            wanted = max(served, default=0) if step.version == NEWEST else step.version
            met.add(wanted if wanted in served else 0)
        return frozenset(met)


class Scene:
    def __init__(self, world: World) -> None:
        self.world = world
        self.store = WatchedStore(world)
        self.store.met = set()
        answers = {v: np.full((1, 1), float(v), dtype=np.float32) for v in (1, 2, 3)}
        self.triton = SimulatedTriton(world, self.store, answers)
        self.journal = Journal(SimulatedStore(world))
        self.servers = Servers(
            registry=cast("Any", None),
            repository=self.store,
            journal=self.journal,
            replicas=cast("Any", (self.triton,)),
            locks=SimulatedLocks(),
        )
        self.settings = Settings(confirm_seconds=10)
        self.candidates = {v: [self.candidate(m, v) for m in MODELS] for v in (1, 2, 3)}

    def candidate(self, model: str, version: int, tensors: str = TENSORS) -> Candidate:
        policy = f"version_policy {{ specific {{ versions: {version} }} }}"
        body = ENSEMBLE if model == "whole" else 'backend: "onnxruntime"'
        config = f'name: "{model}" max_batch_size: 4 {policy} {tensors} {body}'
        files = () if model == "whole" else (FileDigest(path="model.onnx", size=1, sha256="x"),)
        manifest = Manifest(
            model=model,
            version=version,
            config_sha256=hashlib.sha256(config.encode()).hexdigest(),
            files=files,
            lineage=Lineage(
                registered_model="",
                registered_version=version,
                run_id=None,
                source="s",
                source_digest="d",
                flavor="",
            ),
            tools={},
        )
        for file in files:
            self.store.put(f"{model}/{version}/{file.path}", b"g")
        self.store.put(f"{model}/{version}/manifest.json", manifest.to_bytes())
        release = Release(
            manifest=manifest, config=config, relative_tolerance=0.0, absolute_tolerance=0.0
        )
        answer = np.full((1, 1), float(version), dtype=np.float32)
        golden = Samples(inputs={"x": np.zeros((1, 1), np.float32)}, outputs={"y": answer})
        self.journal.keep(release, golden)
        return Candidate(release=release, golden=golden, entry=None)

    def release(self, version: int) -> None:
        self.release_these(self.candidates[version])

    def release_these(self, candidates: list[Candidate], action: str = PROMOTE) -> None:
        release_together(
            self.servers, candidates, action=action, settings=self.settings, progress=silent
        )

    def release_broken(self, version: int, step: int, fault: Fault) -> bool:
        """Whether it said that it had proven itself."""
        self.world.break_at(step, fault)
        try:
            self.release(version)
        except (TritonpipeError, KeyboardInterrupt, Killed) as error:
            return "are served and confirmed, but" in str(error)
        finally:
            self.world.break_at(0, None)
        return True

    @property
    def served(self) -> list[tuple[int, ...]]:
        return [served_versions(read_state(self.store, m).config or "") for m in MODELS]

    @property
    def whole_follows(self) -> bool:
        config = read_state(self.store, "whole").config or ""
        return all(step.version == NEWEST for step in steps_of(config))


@pytest.fixture
def scene(world: World) -> Scene:
    return Scene(world)


def count_steps(scene: Scene, version: int) -> int:
    scene.world.break_at(0, None)
    scene.release(version)
    return scene.world.steps


def test_no_request_meets_two_releases(scene: Scene) -> None:
    scene.release(1)
    assert scene.served == [(1,), (1,), (1,)]
    scene.store.met.clear()
    scene.release(2)
    assert scene.served == [(2,), (2,), (2,)]
    assert scene.whole_follows
    assert scene.store.met == {frozenset({1}), frozenset({2})}


def test_killed_anywhere_a_server_that_is_late_never_mixes_two_releases(world: World) -> None:
    def staged() -> tuple[Scene, LateTriton]:
        scene = Scene(world)
        late = {"clean": 0, "score": 2, "whole": 25}
        triton = LateTriton(world, scene.store, scene.triton.answers, late=late, ensemble="whole")
        scene.servers = replace(scene.servers, replicas=cast("Any", (triton,)))
        scene.release(1)
        triton.met.clear()
        return scene, triton

    rehearsal, triton = staged()
    steps = count_steps(rehearsal, 2)
    assert triton.met == {frozenset({1}), frozenset({2})}
    for step in range(13, steps, 20):  # a server is late by more than that
        scene, triton = staged()
        scene.release_broken(2, step, Fault.KILL)
        scene.release(2)
        assert triton.met <= {frozenset({1}), frozenset({2})}, step
        assert scene.served == [(2,), (2,), (2,)]


def test_one_ensemble_is_replaced_at_a_time(scene: Scene) -> None:
    scene.release(1)
    with (
        scene.servers.locks.hold(ENSEMBLES, seconds=0, tell=lambda _text: None),
        pytest.raises(ConflictError, match="an ensemble is being published by another publisher"),
    ):
        scene.release(2)
    assert scene.served == [(1,), (1,), (1,)]
    scene.release(2)
    assert scene.served == [(2,), (2,), (2,)]


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.INTERRUPT, Fault.KILL])
def test_whatever_breaks_no_request_meets_two_releases_and_the_next_run_finishes(
    world: World, fault: Fault
) -> None:
    rehearsal = Scene(world)
    rehearsal.release(1)
    steps = count_steps(rehearsal, 2)
    assert steps > 60
    for step in range(0, steps, 7 if fault is Fault.KILL else 17):
        scene = Scene(world)
        scene.release(1)
        scene.store.met.clear()
        is_done = scene.release_broken(2, step, fault)
        assert scene.store.met <= {frozenset({1}), frozenset({2})}, step
        if fault is not Fault.KILL and not is_done and "confirmed" not in last_events(scene):
            # At the very end nothing is left to take back: they had proven themselves.
            proven = [(2,)] if fault is Fault.INTERRUPT and step > 0.9 * steps else []
            assert scene.served in [[one] * 3 for one in [(1,), *proven]], step
            assert scene.whole_follows, step
        scene.release(2)
        assert scene.store.met <= {frozenset({1}), frozenset({2})}, step
        assert scene.served == [(2,), (2,), (2,)], step
        assert scene.whole_follows, step
        assert {c.release.manifest.version for c in previous_together(scene.servers, "whole")} == {
            1
        }, step


def last_events(scene: Scene) -> set[str]:
    return {scene.journal.entries(model)[-1].event for model in MODELS}


def test_they_go_back_together_from_any_of_them(scene: Scene) -> None:
    scene.release(1)
    scene.release(2)
    scene.store.met.clear()
    back = previous_together(scene.servers, "score")
    assert {c.release.manifest.model for c in back} == set(MODELS)
    scene.release_these(back, ROLLBACK)
    assert scene.served == [(1,), (1,), (1,)]
    assert scene.whole_follows
    assert scene.store.met <= {frozenset({1}), frozenset({2})}


def test_a_killed_rollback_is_finished_not_reversed(scene: Scene) -> None:
    scene.release(1)
    scene.release(2)
    back = previous_together(scene.servers, "whole")
    scene.world.break_at(60, Fault.KILL)
    with pytest.raises(Killed):
        scene.release_these(back, ROLLBACK)
    scene.world.break_at(0, None)
    again = previous_together(scene.servers, "whole")
    assert {c.release.manifest.version for c in again} == {1}
    scene.release_these(again, ROLLBACK)
    assert scene.served == [(1,), (1,), (1,)]


@pytest.mark.parametrize("model", MODELS)
def test_one_that_answers_wrongly_takes_all_of_them_back(scene: Scene, model: str) -> None:
    scene.release(1)
    scene.store.met.clear()
    wrong = Samples(
        inputs={"x": np.zeros((1, 1), np.float32)}, outputs={"y": np.ones((1, 1), np.float32)}
    )
    number = MODELS.index(model)
    scene.journal.keep(scene.candidates[2][number].release, wrong)
    with pytest.raises(ConfirmationError, match="answers"):
        scene.release(2)
    assert scene.served == [(1,), (1,), (1,)]
    assert scene.whole_follows
    assert scene.store.met <= {frozenset({1}), frozenset({2})}


def test_new_models_that_are_refused_are_taken_away(scene: Scene) -> None:
    scene.triton.answers.pop(1)
    with pytest.raises(ConfirmationError):
        scene.release(1)
    assert [key for key in scene.store.snapshot() if key.endswith("config.pbtxt")] == []


def test_a_step_with_another_interface_is_refused_before_anything_changes(scene: Scene) -> None:
    scene.release(1)
    other = TENSORS.replace("dims: 1", "dims: 5")
    before = scene.store.snapshot()
    candidates = [scene.candidate("clean", 2, other), *scene.candidates[2][1:]]
    with pytest.raises(ConflictError, match="other inputs or outputs"):
        scene.release_these(candidates)
    configs = {k: v for k, v in scene.store.snapshot().items() if k.endswith("config.pbtxt")}
    assert configs.items() <= before.items()


def test_an_ensemble_that_is_not_released_with_its_steps_does_not_mix_them_either(
    scene: Scene,
) -> None:
    scene.release(1)
    scene.store.met.clear()
    scene.release_these(scene.candidates[2][:2])
    assert scene.served == [(2,), (2,), (1,)]
    assert scene.whole_follows
    assert scene.store.met == {frozenset({1}), frozenset({2})}


def test_one_step_alone_does_not_take_a_version_away_that_an_ensemble_names(scene: Scene) -> None:
    scene.release(1)
    config = read_state(scene.store, "whole").config or ""
    scene.store.put("whole/config.pbtxt", pinned(config, {"clean": 1}).encode())
    planned = read_state(scene.store, "clean")
    with pytest.raises(ConflictError, match="the ensemble whole names version 1 of clean"):
        publish_and_serve(
            scene.servers,
            scene.candidates[2][0],
            planned,
            action=PROMOTE,
            settings=scene.settings,
            progress=silent,
        )
    assert read_state(scene.store, "clean").version == 1


def test_half_way_the_models_are_refused_to_anybody_else(scene: Scene) -> None:
    scene.release(1)
    for step in range(20, 400, 10):
        scene.release_broken(2, step, Fault.KILL)
        if len(served_versions(read_state(scene.store, "clean").config or "")) == 2:
            break
    with pytest.raises(ConflictError, match="half way") as caught:
        _ = read_state(scene.store, "clean").version
    assert "tritonpipe rollback clean" in caught.value.hint


def killed_half_way(scene: Scene, version: int) -> None:
    """Kill the release of a version when its steps serve old and new."""
    for step in range(20, 400, 10):
        scene.release_broken(version, step, Fault.KILL)
        if len(served_versions(read_state(scene.store, "score").config or "")) == 2:
            return
    pytest.fail("it was never half way")


def test_a_release_that_was_killed_unproven_is_not_what_a_later_one_returns_to(
    scene: Scene,
) -> None:
    scene.release(1)
    killed_half_way(scene, 2)
    scene.triton.answers[3] = np.full((1, 1), -1.0, np.float32)
    with pytest.raises(ConfirmationError):
        scene.release(3)
    assert scene.served == [(1,), (1,), (1,)]
    assert scene.whole_follows


def test_half_way_it_can_be_taken_back(scene: Scene) -> None:
    scene.release(1)
    killed_half_way(scene, 2)
    scene.store.met.clear()
    scene.release_these(previous_together(scene.servers, "score"), ROLLBACK)
    assert scene.served == [(1,), (1,), (1,)]
    assert scene.store.met <= {frozenset({1}), frozenset({2})}


def test_killed_before_all_journals_know_of_it_the_release_before_can_be_taken_back(
    scene: Scene,
) -> None:
    scene.release(1)
    scene.release(2)
    for step in range(80):
        scene.release_broken(3, step, Fault.KILL)
        back = previous_together(scene.servers, "clean")
        assert {c.release.manifest.version for c in back} == {1}, step
        if scene.journal.entries("clean")[-1].event == "committing":
            break
    scene.release_these(back, ROLLBACK)
    assert scene.served == [(1,), (1,), (1,)]


def test_an_ensemble_whose_author_names_a_step_keeps_it(scene: Scene) -> None:
    scene.release(1)
    config = pinned(scene.candidates[2][2].release.config, {"clean": 1})
    manifest = scene.candidates[2][2].release.manifest
    release = replace(scene.candidates[2][2].release, config=config, manifest=manifest)
    scene.journal.keep(release, scene.candidates[2][2].golden)
    scene.store.put("whole/config.pbtxt", config.encode())
    with pytest.raises(ConflictError, match="the ensemble whole names version 1 of clean"):
        scene.release_these(scene.candidates[2][:2])
    assert scene.served[:2] == [(1,), (1,)]


def test_an_ensemble_inside_another_one_is_refused_a_second_version(scene: Scene) -> None:
    scene.release(1)
    outer = ENSEMBLE.replace('"score"', '"whole"')
    scene.store.put(
        "outer/config.pbtxt",
        f'name: "outer" version_policy {{ specific {{ versions: 1 }} }} {TENSORS} {outer}'.encode(),
    )
    candidate = scene.candidate("outer", 1)
    release = replace(
        candidate.release,
        config=(scene.store.get("outer/config.pbtxt") or b"").decode(),
        manifest=replace(candidate.release.manifest, files=()),
    )
    scene.journal.keep(release, candidate.golden)
    scene.store.delete(["outer/1/model.onnx"])
    scene.store.put("outer/1/manifest.json", release.manifest.to_bytes())
    with pytest.raises(ConflictError, match="whole is an ensemble and a step of outer"):
        scene.release(2)
    assert scene.served == [(1,), (1,), (1,)]


def test_what_somebody_else_commits_meanwhile_is_left_alone(scene: Scene) -> None:
    scene.release(1)
    theirs = scene.candidates[3][0].release.config
    real, is_first = scene.triton.infer, True

    def commits(*arguments: Any, **named: Any) -> Any:
        nonlocal is_first
        if is_first and named.get("version") == 2:
            is_first = False
            scene.store.put("clean/config.pbtxt", theirs.encode())
        return real(*arguments, **named)

    scene.triton.infer = commits  # type: ignore[method-assign]
    with pytest.raises(TritonpipeError, match="somebody else has committed"):
        scene.release(2)
    assert read_state(scene.store, "clean").config == theirs


def test_a_server_that_starts_again_does_not_take_a_release_back(scene: Scene) -> None:
    scene.release(1)
    real = scene.triton.steps
    calls = 0

    def restarts(model: str) -> tuple[tuple[str, int], ...]:
        nonlocal calls
        calls += 1
        if calls in {1, 2, 5}:
            scene.world.sleep(0.5)
            raise UnavailableError("starting")
        return real(model)

    scene.triton.steps = restarts  # type: ignore[method-assign]
    scene.release(2)
    assert scene.served == [(2,), (2,), (2,)]


def test_an_entry_of_somebody_else_does_not_break_a_promotion(scene: Scene) -> None:
    scene.release(1)
    scene.store.put("theirs/config.pbtxt", b"\xff no config")
    scene.store.put("mine/config.pbtxt", f'name: "mine" {TENSORS} {ENSEMBLE}'.encode())
    planned = read_state(scene.store, "clean")
    publish_and_serve(
        scene.servers,
        scene.candidates[2][0],
        planned,
        action=PROMOTE,
        settings=scene.settings,
        progress=silent,
    )
    assert read_state(scene.store, "clean").version == 2
    with pytest.raises(ConflictError, match="mine uses a model of this release"):
        scene.release(3)


def test_a_proof_that_cannot_be_written_down_says_so(scene: Scene) -> None:
    scene.release(1)
    real = scene.journal.append

    def fails(model: str, **event: Any) -> None:
        if event["event"] == "confirmed":
            raise UnavailableError("the store is away")
        real(model, **event)

    scene.journal.append = fails  # type: ignore[method-assign]
    with pytest.raises(UnavailableError, match="are served and confirmed, but"):
        scene.release(2)
    assert scene.served == [(2,), (2,), (2,)]
    scene.journal.append = real  # type: ignore[method-assign]
    scene.release(2)
    assert last_events(scene) == {"confirmed"}


def test_a_step_cannot_change_while_an_ensemble_of_it_is_published(scene: Scene) -> None:
    scene.release_these(scene.candidates[1][:2])
    real = scene.triton.infer
    refusals: list[ConflictError] = []
    planned = read_state(scene.store, "clean")

    def promotes_a_step(*arguments: Any, **named: Any) -> Any:
        if not refusals:
            with pytest.raises(ConflictError, match="is being published") as caught:
                publish_and_serve(
                    scene.servers,
                    scene.candidates[2][0],
                    planned,
                    action=PROMOTE,
                    settings=scene.settings,
                    progress=silent,
                )
            refusals.append(caught.value)
        return real(*arguments, **named)

    scene.triton.infer = promotes_a_step  # type: ignore[method-assign]
    publish_and_serve(
        scene.servers,
        scene.candidates[1][2],
        read_state(scene.store, "whole"),
        action=PROMOTE,
        settings=scene.settings,
        progress=silent,
    )
    assert len(refusals) == 1
    assert scene.served == [(1,), (1,), (1,)]


def test_a_config_that_is_damaged_on_its_way_is_no_bug_and_costs_nothing(world: World) -> None:
    damaged, is_damaged = 1, True
    while is_damaged:
        scene = Scene(world)
        scene.release(1)
        scene.store.met.clear()
        with DamagedReads(scene.store, damaged) as reads, contextlib.suppress(TritonpipeError):
            scene.release(2)
        is_damaged = reads.reads >= damaged
        scene.release(2)
        assert scene.served == [(2,), (2,), (2,)], damaged
        assert scene.store.met <= {frozenset({1}), frozenset({2})}, damaged
        damaged += 7
    assert damaged > 30
