"""Laws of serving, under a fault at every single step."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from pipeline.artifacts import Release
from pipeline.errors import ConfirmationError, ConflictError, TritonpipeError
from pipeline.flows.fallback import last_confirmed
from pipeline.flows.journal import PROMOTE, ROLLBACK, Journal, served_history
from pipeline.flows.progress import silent
from pipeline.flows.publish import read_state
from pipeline.flows.rollback import _plan
from pipeline.flows.serve import Served, proof_of_served, serve
from pipeline.flows.servers import Servers
from pipeline.manifest import FileDigest, Lineage, Manifest
from pipeline.samples import Samples
from pipeline.testing.simulated import (
    DamagedReads,
    Fault,
    Killed,
    SimulatedLocks,
    SimulatedStore,
    SimulatedTriton,
    World,
)

STEPS = 28
"""More than a promotion has; the last ones break nothing, which is a case, too."""


@dataclass
class Scene:
    """Releases 1, 2 and 3 of one model, published and recorded; none is committed."""

    world: World
    store: SimulatedStore
    servers: Servers = field(init=False)
    releases: dict[int, tuple[Release, Samples]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        answers = {v: np.full((1, 1), float(v), dtype=np.float32) for v in (1, 2, 3)}
        self.triton = SimulatedTriton(self.world, self.store, answers)
        self.locks = SimulatedLocks()
        self.journal = Journal(SimulatedStore(self.world))
        self.servers = Servers(
            registry=cast("Any", None),
            repository=self.store,
            journal=self.journal,
            replicas=cast("Any", (self.triton,)),
            locks=self.locks,
        )
        for version, answer in answers.items():
            self.publish(version, answer)

    def publish(self, version: int, answer: Any) -> None:
        config = (
            f'name: "m" max_batch_size: 4 version_policy {{ specific {{ versions: {version} }} }}'
        )
        digest = FileDigest(path="model.onnx", size=1, sha256="x")
        lineage = Lineage(
            registered_model="m",
            registered_version=version,
            run_id=None,
            source="s",
            source_digest="d",
            flavor="onnx",
        )
        manifest = Manifest(
            model="m",
            version=version,
            config_sha256=hashlib.sha256(config.encode()).hexdigest(),
            files=(digest,),
            lineage=lineage,
            tools={},
        )
        self.store.put(f"m/{version}/model.onnx", b"g")
        self.store.put(f"m/{version}/manifest.json", manifest.to_bytes())
        release = Release(
            manifest=manifest, config=config, relative_tolerance=0.0, absolute_tolerance=0.0
        )
        golden = Samples(inputs={"x": np.zeros((1, 1), np.float32)}, outputs={"y": answer})
        self.journal.keep(release, golden)
        self.releases[version] = release, golden

    def serve(self, version: int, action: str = PROMOTE) -> None:
        release, golden = self.releases[version]
        serve(
            self.servers,
            release,
            golden,
            held=self.locks,
            action=action,
            seconds=10,
            progress=silent,
        )

    def proof(self, version: int) -> Served | None:
        """The proof of what is served, as it is found without a lock."""
        release, golden = self.releases[version]
        state = read_state(self.store, "m")
        return proof_of_served(self.servers, state, release, golden, seconds=10, progress=silent)

    def serve_broken(self, version: int, step: int, fault: Fault) -> str:
        """Serve with a fault; gives how it ended."""
        self.world.break_at(step, fault)
        try:
            self.serve(version)
        except (TritonpipeError, KeyboardInterrupt, Killed) as error:
            return str(error) or type(error).__name__
        finally:
            self.world.break_at(0, None)
        return ""

    @property
    def served(self) -> int | None:
        return self.triton.served("m")

    @property
    def history(self) -> list[int]:
        return served_history(self.journal.entries("m"), read_state(self.store, "m").version)

    def rollback_target(self) -> int:
        return _plan(self.servers, "m", None)[0].version


@pytest.fixture
def scene(world: World, store: SimulatedStore) -> Scene:
    return Scene(world=world, store=store)


def test_there_are_fewer_steps_than_are_broken(scene: Scene) -> None:
    scene.serve(1)
    scene.world.break_at(0, None)
    scene.serve(2)
    assert 10 < scene.world.steps < STEPS


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("step", range(STEPS))
def test_whatever_breaks_the_next_run_finishes_and_nothing_is_forgotten(
    scene: Scene, step: int, fault: Fault
) -> None:
    scene.serve(1)
    scene.serve_broken(2, step, fault)
    assert scene.served in {1, 2}
    assert last_confirmed(scene.journal.entries("m")) in {1, 2}
    scene.serve(2)
    assert scene.served == last_confirmed(scene.journal.entries("m")) == 2
    assert scene.history == [1, 2]
    assert scene.rollback_target() == 1
    scene.serve(3)
    assert scene.history == [1, 2, 3]


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.INTERRUPT])
@pytest.mark.parametrize("step", range(STEPS))
def test_an_error_or_ctrl_c_leaves_the_old_version_unless_the_new_one_was_proven(
    scene: Scene, step: int, fault: Fault
) -> None:
    scene.serve(1)
    ended = scene.serve_broken(2, step, fault)
    if not ended or "is served and confirmed" in ended:
        assert scene.served == 2
    elif fault is Fault.INTERRUPT:
        # At the very end nothing is left to restore: the version had proven itself.
        assert scene.served == 1 or scene.history == [1, 2]
    else:
        assert scene.served == 1


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("step", range(STEPS))
def test_a_version_that_fails_after_a_broken_run_makes_room_for_the_proven_one(
    scene: Scene, step: int, fault: Fault
) -> None:
    scene.serve(1)
    scene.triton.answers[2] = np.full((1, 1), -1.0, np.float32)
    scene.serve_broken(2, step, fault)
    with pytest.raises(ConfirmationError, match="otherwise than the source model"):
        scene.serve(2)
    assert scene.served == 1
    assert scene.history == [1]


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("step", range(STEPS))
def test_a_new_model_is_served_or_gone(scene: Scene, step: int, fault: Fault) -> None:
    ended = scene.serve_broken(1, step, fault)
    if ended and fault is Fault.ERROR and "confirmed" not in ended and "restored" not in ended:
        assert scene.served is None


def test_a_broken_new_model_is_taken_away_whole(scene: Scene) -> None:
    scene.triton.answers[1] = np.full((1, 1), -1.0, np.float32)
    with pytest.raises(ConfirmationError):
        scene.serve(1)
    assert scene.store.snapshot() == {}, "Triton serves on what has any object left"


@pytest.mark.parametrize("step", range(STEPS))
def test_a_killed_rollback_is_finished_by_the_next_not_followed_by_another(
    scene: Scene, step: int
) -> None:
    for version in (1, 2, 3):
        scene.serve(version)
    scene.world.break_at(step, Fault.KILL)
    with contextlib.suppress(Killed):
        scene.serve(2, action=ROLLBACK)
    scene.world.break_at(0, None)
    if scene.journal.entries("m")[-1].event != "confirmed":
        assert scene.rollback_target() == 2
        scene.serve(2, action=ROLLBACK)
        assert scene.history == [1, 2]


def test_a_version_of_somebody_else_is_left_alone(scene: Scene) -> None:
    scene.serve(1)
    scene.triton.answers.pop(2)
    real_infer = scene.triton.infer

    def other_commits(protocol: str, model: str, inputs: Any, **named: Any) -> Any:
        scene.store.put("m/config.pbtxt", scene.releases[3][0].config.encode())
        return real_infer(protocol, model, inputs, **named)

    scene.triton.answers[2] = np.zeros((1, 1), np.float32)
    scene.triton.infer = other_commits  # type: ignore[method-assign,assignment]
    with pytest.raises(ConfirmationError, match="somebody else") as caught:
        scene.serve(2)
    assert isinstance(caught.value.__cause__, ConfirmationError | ConflictError)
    assert scene.served == 3
    assert scene.journal.entries("m")[-1].event == "failed", "a run that was overtaken has ended"


def test_a_refusal_is_written_down_even_if_the_old_version_does_not_prove_itself(
    scene: Scene,
) -> None:
    scene.serve(1)
    scene.triton.answers[2] = np.full((1, 1), -1.0, np.float32)
    scene.triton.answers.pop(1)
    with pytest.raises(ConfirmationError, match="version 1 is committed again"):
        scene.serve(2)
    assert read_state(scene.store, "m").version == 1
    assert scene.journal.entries("m")[-1].event == "failed"


def test_a_config_that_is_gone_does_not_make_a_proven_model_a_new_one(scene: Scene) -> None:
    scene.serve(1)
    scene.serve(2)
    scene.store.delete(["m/config.pbtxt"])
    scene.triton.answers[3] = np.full((1, 1), -1.0, np.float32)
    with pytest.raises(ConfirmationError):
        scene.serve(3)
    assert scene.served == 2
    assert scene.store.get("m/1/manifest.json") is not None


def test_what_is_served_is_proven_without_a_write(scene: Scene) -> None:
    scene.serve(1)
    before = scene.store.snapshot(), scene.journal.entries("m")
    served = scene.proof(1)
    assert served is not None
    assert served.confirmation.ok
    assert not served.is_new
    assert (scene.store.snapshot(), scene.journal.entries("m")) == before


def test_what_is_not_served_and_proven_has_no_such_proof(scene: Scene) -> None:
    assert scene.proof(1) is None
    scene.serve(1)
    assert scene.proof(2) is None
    scene.journal.append("m", event="committing", action=PROMOTE, version=1, previous=None)
    assert scene.proof(1) is None, "a run was killed: nobody knows what it left"


def test_what_somebody_else_has_committed_is_written_down_when_it_is_proven(scene: Scene) -> None:
    scene.serve(1)
    scene.serve(2)
    scene.store.put("m/config.pbtxt", scene.releases[1][0].config.encode())
    assert last_confirmed(scene.journal.entries("m")) == 2
    assert scene.proof(1) is None
    for _again in range(2):
        scene.serve(1)
        assert scene.history == [1, 2, 1]
        assert last_confirmed(scene.journal.entries("m")) == 1


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_no_break_makes_a_proof_of_what_is_not_served(scene: Scene, step: int) -> None:
    scene.serve(1)
    scene.serve_broken(2, step, Fault.KILL)
    for version in (1, 2):
        served = scene.proof(version)
        assert served is None or scene.served == version


@pytest.mark.parametrize("damaged", range(1, 9))
def test_a_config_that_is_damaged_on_its_way_is_no_bug_and_costs_nothing(
    scene: Scene, damaged: int
) -> None:
    scene.serve(1)
    with DamagedReads(scene.store, damaged), contextlib.suppress(TritonpipeError):
        scene.serve(2)
    assert scene.served in {1, 2}
    scene.serve(2)
    assert scene.served == 2
    assert scene.rollback_target() == 1
