"""Laws of hand-written publications: the same command finishes what was killed anywhere.

The scene is an ensemble ``whole`` above the step ``clean``, and a step ``free`` beside them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from pipeline.artifacts import ModelVersion
from pipeline.errors import ConfirmationError, ConflictError, ModelError, RequestError
from pipeline.flows import handwritten
from pipeline.flows.handwritten import plan, publish
from pipeline.flows.joint_rollback import previous_together
from pipeline.flows.journal import CONFIRMED, Journal
from pipeline.flows.publish import read_state
from pipeline.flows.release import refuse_other_model
from pipeline.flows.servers import Servers
from pipeline.manifest import Lineage
from pipeline.model_config import served_version
from pipeline.settings import Settings
from pipeline.testing.simulated import (
    Fault,
    Killed,
    SimulatedLocks,
    SimulatedStore,
    SimulatedTriton,
    World,
)

MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []  # {}\n"
IO = """
input { name: "x" data_type: TYPE_FP32 dims: 1 } output { name: "y" data_type: TYPE_FP32 dims: 1 }
"""
STEP = 'backend: "python"' + IO
ENSEMBLE = f"""platform: "ensemble" {IO}
ensemble_scheduling {{ step {{ model_name: "clean" model_version: -1
  input_map {{ key: "x" value: "x" }} output_map {{ key: "y" value: "y" }} }} }}
"""
ALL = ("free", "whole", "clean")
STEPS_OF_A_JOINT_RUN = 260


class Scene:
    """A folder of entries, and a world in which they are served; version N answers N."""

    def __init__(self, folder: Path, world: World, store: SimulatedStore) -> None:
        self.folder = folder
        self.world = world
        self.store = store
        answers = {v: np.full((1,), float(v), dtype=np.float32) for v in (1, 2, 3)}
        self.triton = SimulatedTriton(world, store, answers)
        self.servers = Servers(
            registry=cast("Any", None),
            repository=store,
            journal=Journal(SimulatedStore(world)),
            replicas=cast("Any", (self.triton,)),
            locks=SimulatedLocks(),
        )
        for name in ALL:
            self.write(name, 1)

    def write(self, name: str, version: int, *, answer: float | None = None) -> Path:
        """An entry with this version alone."""
        entry = self.folder / name
        for old in entry.glob("[0-9]"):
            old.rename(entry / str(version))
        (entry / str(version)).mkdir(parents=True, exist_ok=True)
        (entry / "config.pbtxt").write_text(ENSEMBLE if name == "whole" else STEP)
        if name != "whole":
            (entry / str(version) / "model.py").write_text(MODEL.format(version))
        common = {"datatype": "FP32", "shape": [1]}
        outputs = [{"name": "y", "data": [version if answer is None else answer], **common}]
        golden = {"inputs": [{"name": "x", "data": [0], **common}], "outputs": outputs}
        (entry / "golden.json").write_text(json.dumps(golden))
        return entry

    def publish(self, *names: str) -> dict[str, str]:
        paths = [self.folder / name for name in names]
        result = publish(paths, Settings(confirm_seconds=10))
        return {entry.model: entry.outcome for entry in result.entries}

    @property
    def served(self) -> dict[str, int | None]:
        return {name: self.triton.served(name) for name in ALL}


@pytest.fixture
def scene(
    tmp_path: Path, world: World, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> Scene:
    scene = Scene(tmp_path, world, store)

    @contextmanager
    def opened(_settings: object) -> Iterator[Servers]:
        yield scene.servers

    monkeypatch.setattr(handwritten, "open_servers", opened)
    return scene


def test_steps_come_before_the_ensembles_that_use_them(scene: Scene) -> None:
    published = list(scene.publish(*ALL))
    assert published.index("clean") < published.index("whole")
    assert scene.served == dict.fromkeys(ALL, 1)


def test_publishing_twice_is_publishing_once(scene: Scene) -> None:
    assert set(scene.publish(*ALL).values()) == {"published"}
    before = scene.store.snapshot()
    writes = len(scene.store.writes)
    assert set(scene.publish(*ALL).values()) == {"unchanged"}
    assert scene.store.snapshot() == before
    assert len(scene.store.writes) == writes


def test_only_what_changed_is_released_together(scene: Scene) -> None:
    scene.publish(*ALL)
    for name in ("clean", "whole"):
        scene.write(name, 2)
    assert scene.publish(*ALL) == {"free": "unchanged", "clean": "published", "whole": "published"}
    last = scene.servers.journal.entries("whole")[-1]
    assert last.together == ("clean/2", "whole/2")
    assert len(scene.servers.journal.entries("free")) == 2


@pytest.mark.parametrize("step", range(25, STEPS_OF_A_JOINT_RUN, 39))
def test_whatever_is_killed_the_same_command_finishes(scene: Scene, step: int) -> None:
    scene.publish(*ALL)
    for name in ("clean", "whole"):
        scene.write(name, 2)
    scene.world.break_at(step, Fault.KILL)
    with contextlib.suppress(Killed):
        scene.publish(*ALL)
    scene.world.break_at(0, None)
    scene.publish(*ALL)
    assert scene.served == {"free": 1, "clean": 2, "whole": 2}
    assert set(scene.publish(*ALL).values()) == {"unchanged"}


@pytest.mark.parametrize("noted", [0, 1])
def test_what_was_killed_while_it_noted_the_outcome_still_goes_back_together(
    scene: Scene, noted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish("clean", "whole")
    for name in ("clean", "whole"):
        scene.write(name, 2)
    real, confirmed = Journal.append, [True] * noted

    def append(journal: Journal, model: str, **entry: Any) -> None:
        if entry["event"] == CONFIRMED and not confirmed:
            raise Killed
        if entry["event"] == CONFIRMED:
            confirmed.pop()
        real(journal, model, **entry)

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(Journal, "append", append)
        scene.publish("clean", "whole")
    scene.publish("whole", "clean")
    back = previous_together(scene.servers, "whole")
    assert {c.release.manifest.model: c.release.manifest.version for c in back} == {
        "clean": 1,
        "whole": 1,
    }


def test_the_kills_reach_the_end_of_a_run(scene: Scene) -> None:
    scene.publish(*ALL)
    for name in ("clean", "whole"):
        scene.write(name, 2)
    scene.world.break_at(0, None)
    scene.publish(*ALL)
    assert STEPS_OF_A_JOINT_RUN * 0.7 < scene.world.steps < STEPS_OF_A_JOINT_RUN * 1.2


@pytest.mark.parametrize("changed", ["model.py", "config.pbtxt", "golden.json"])
def test_what_a_version_was_proven_with_never_changes(scene: Scene, changed: str) -> None:
    scene.publish("free")
    before = scene.store.snapshot()
    file = scene.folder / "free" / ("1/model.py" if changed == "model.py" else changed)
    text = file.read_text()
    more = {"model.py": "\n", "config.pbtxt": "parameters { }", "golden.json": ""}[changed]
    file.write_text(text.replace('"data": [0]', '"data": [5]') + more)
    with pytest.raises(ConflictError, match=r"free/1 was published with other") as caught:
        scene.publish("free")
    assert "git mv 1 2" in caught.value.hint
    assert scene.store.snapshot() == before


def test_a_version_that_is_not_served_any_more_does_not_change_either(scene: Scene) -> None:
    scene.publish("free")
    scene.write("free", 2)
    scene.publish("free")
    scene.write("free", 1)
    (scene.folder / "free" / "1" / "model.py").write_text(MODEL)
    with pytest.raises(ConflictError, match=r"free/1 was published with other files"):
        scene.publish("free")
    scene.write("free", 1)
    assert scene.publish("free") == {"free": "published"}
    assert scene.served["free"] == 1


def test_a_version_that_was_never_proven_can_be_corrected(scene: Scene) -> None:
    scene.publish("free")
    scene.write("free", 2, answer=7.0)
    with pytest.raises(ConfirmationError, match=r"otherwise than its author says"):
        scene.publish("free")
    assert scene.served["free"] == 1
    scene.write("free", 2)
    assert scene.publish("free") == {"free": "published"}


def test_what_the_server_refused_is_uploaded_anew(scene: Scene) -> None:
    scene.publish("free")
    scene.write("free", 2)
    right = scene.triton.answers.pop(2)
    scene.triton.answers[2] = right + 1
    with pytest.raises(ConfirmationError):
        scene.publish("free")
    scene.triton.answers[2] = right
    scene.store.writes.clear()
    assert scene.publish("free") == {"free": "published"}
    assert "free/2/model.py" in scene.store.writes


def test_what_is_committed_and_not_proven_does_not_change_either(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_arguments: object) -> None:
        scene.world.break_at(0, Fault.KILL)
        scene.world.step()

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(scene.triton, "is_ready", killed)
        scene.publish("free")
    scene.world.break_at(0, None)
    assert scene.served["free"] == 1
    (scene.folder / "free" / "1" / "model.py").write_text(MODEL)
    with pytest.raises(ConflictError, match=r"free/1 was published with other files"):
        scene.publish("free")
    scene.write("free", 1)
    assert scene.publish("free") == {"free": "published"}


def test_an_ensemble_without_its_step_is_refused_before_anything_is_written(scene: Scene) -> None:
    with pytest.raises(ModelError, match="its step 'clean' is neither published nor") as caught:
        scene.publish("free", "whole")
    assert "tritonpipe publish STEP ENSEMBLE" in caught.value.hint
    assert scene.store.snapshot() == {}
    scene.publish("clean")
    scene.publish("whole")
    assert scene.served["whole"] == 1


def test_an_entry_that_is_named_twice_is_refused(scene: Scene) -> None:
    with pytest.raises(RequestError, match="named twice"):
        scene.publish("free", "free")


def test_a_plan_writes_nothing_and_tells_what_publishing_does(scene: Scene) -> None:
    paths = [scene.folder / name for name in ALL]
    plans = {p.model: p for p in plan(paths, Settings())}
    assert scene.store.snapshot() == {}
    assert [u.path for u in plans["clean"].uploads] == ["model.py", "manifest.json"]
    assert [u.path for u in plans["whole"].uploads] == ["manifest.json"]
    scene.publish(*ALL)
    assert all(p.is_empty for p in plan(paths, Settings()))
    assert served_version((scene.store.snapshot()["clean/config.pbtxt"] or b"").decode()) == 1


def test_a_promotion_does_not_take_over_what_was_published_by_hand(scene: Scene) -> None:
    scene.publish("free")
    version = ModelVersion(name="fraud", version=1, run_id=None, source="", tags={})
    with pytest.raises(ConflictError, match="serves an entry published by hand, not"):
        refuse_other_model(scene.servers, read_state(scene.store, "free"), version)


def test_a_model_from_the_registry_is_not_taken_over(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish("free")
    monkeypatch.setattr(Lineage, "is_by_hand", property(lambda _self: False))
    with pytest.raises(ConflictError, match="serves the registered model"):
        scene.publish("free")
