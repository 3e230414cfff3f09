"""What belongs to a model in parts, and what may take its place."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pipeline.artifacts import ModelVersion, Release
from pipeline.errors import ConflictError
from pipeline.flows.journal import COLLECTED, CONFIRMED, PROMOTE, RETIRE, Journal
from pipeline.flows.parts import (
    owner_of,
    plan_of_recorded,
    recorded_parts,
    refuse_other_parts,
)
from pipeline.flows.publication import Candidate
from pipeline.flows.publish import read_state
from pipeline.flows.servers import Servers
from pipeline.manifest import Lineage, Manifest
from pipeline.samples import Samples
from pipeline.testing.simulated import SimulatedStore, World

TOGETHER = ("letters/2", "letters.network/2", "letters.tokenizer/2")
VERSION = ModelVersion(name="letters", version=2, run_id=None, source="", tags={})
ONE = 'backend: "onnxruntime"'
STEPS = "".join(
    f'step {{ model_name: "letters.{part}" model_version: 1 input_map {{ key: "a" value: "{a}" }} '
    f'output_map {{ key: "b" value: "{b}" }} }} '
    for part, a, b in (("tokenizer", "text", "ids"), ("network", "ids", "label"))
)
PARTS = f'platform: "ensemble" ensemble_scheduling {{ {STEPS} }}'


class Scene:
    """A repository and its journal."""

    def __init__(self) -> None:
        world = World()
        self.store = SimulatedStore(world)
        self.journal = Journal(SimulatedStore(world))
        self.servers = cast("Servers", SimpleNamespace(repository=self.store, journal=self.journal))

    def serve(self, model: str, body: str = ONE, owner: str = "letters") -> Candidate:
        config = f'name: "{model}" version_policy {{ specific {{ versions: 1 }} }} {body}'
        lineage = Lineage(
            registered_model=owner,
            registered_version=1,
            run_id=None,
            source="",
            source_digest="",
            flavor="transformers",
        )
        manifest = Manifest(
            model=model, version=1, config_sha256="", files=(), lineage=lineage, tools={}
        )
        release = Release(
            manifest=manifest, config=config, relative_tolerance=0, absolute_tolerance=0
        )
        golden = Samples(inputs={"x": np.zeros(1)}, outputs={"y": np.zeros(1)})
        self.store.put(f"{model}/1/manifest.json", manifest.to_bytes())
        self.store.put(f"{model}/config.pbtxt", config.encode())
        self.journal.keep(release, golden)
        return Candidate(release=release, golden=golden, entry=None)

    def refuse(self, parts: list[Candidate], name: str = "letters") -> None:
        refuse_other_parts(self.servers, read_state(self.store, name), VERSION, parts)


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize(
    ("model", "owner"),
    [
        ("letters.network", "letters"),
        ("letters.tokenizer", "letters"),
        ("letters", ""),
        ("letters.other", ""),
        ("other.network", ""),
    ],
)
def test_a_part_is_told_by_its_name_and_by_what_was_switched_with_it(
    model: str, owner: str
) -> None:
    journal = Journal(SimulatedStore(World()))
    alone = {"action": PROMOTE, "event": CONFIRMED, "version": 2, "previous": 1}
    journal.append(model, **alone, together=TOGETHER)  # type: ignore[arg-type]
    journal.append(model, action=RETIRE, event=COLLECTED, version=2, previous=None)
    assert owner_of(model, journal.entries(model)) == owner
    journal.append("other", **alone)  # type: ignore[arg-type]
    assert owner_of(model, journal.entries("other")) == owner_of(model, ()) == ""


def test_the_parts_of_a_release_are_those_that_its_ensemble_names(scene: Scene) -> None:
    parts = [scene.serve(f"letters.{part}") for part in ("tokenizer", "network")]
    whole = scene.serve("letters", PARTS)
    found = recorded_parts(scene.servers, whole.release)
    assert [c.release for c in found] == [c.release for c in parts]
    assert recorded_parts(scene.servers, parts[0].release) == ()


def test_a_part_that_is_gone_is_told(scene: Scene) -> None:
    whole = scene.serve("letters", PARTS)
    with pytest.raises(ConflictError, match=r"no recorded release letters\.tokenizer/1"):
        recorded_parts(scene.servers, whole.release)


def test_what_is_in_parts_and_what_is_not_do_not_take_each_others_place(scene: Scene) -> None:
    part = scene.serve("letters.network")
    scene.refuse([part])  # nothing is served under the name yet
    scene.serve("letters", PARTS)
    scene.refuse([part])
    with pytest.raises(ConflictError, match=r"served in parts, and letters/2 would be in one"):
        scene.refuse([])
    scene.serve("plain")
    scene.refuse([], "plain")
    with pytest.raises(ConflictError, match="served in one, and letters/2 would be in parts"):
        scene.refuse([part], "plain")


def test_the_name_of_a_part_must_be_free_or_ours(scene: Scene) -> None:
    taken = scene.serve("letters.network", owner="somebody else's")
    with pytest.raises(
        ConflictError, match=r"'letters\.network', which letters/2 needs for a part"
    ):
        scene.refuse([taken])


def test_a_plan_has_the_parts(scene: Scene) -> None:
    part, whole = scene.serve("letters.network"), scene.serve("letters", PARTS)
    plan = plan_of_recorded(scene.servers, whole, part)
    assert (plan.is_empty, [p.model for p in plan.parts]) == (True, ["letters.network"])
    other = replace(part, release=replace(part.release, config=part.release.config + " "))
    assert not plan_of_recorded(scene.servers, whole, cast("Any", other)).is_empty
