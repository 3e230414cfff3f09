"""What the registry says of each version is true, whatever happened in whatever order."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.artifacts import Comparison, Confirmation, ModelVersion, Release
from pipeline.errors import ConfirmationError, ModelError, RefusedError, UnavailableError
from pipeline.flows.claims import SERVING, claims_of, is_recorded
from pipeline.flows.journal import (
    COLLECTED,
    COMMITTING,
    CONFIRMED,
    FAILED,
    PROMOTE,
    RETIRE,
    Journal,
)
from pipeline.flows.record import failures_recorded, record_retirement, record_served
from pipeline.flows.servers import Servers
from pipeline.manifest import FileDigest, Lineage, Manifest
from pipeline.reports import Report
from pipeline.samples import Samples
from pipeline.tensors import DataType
from pipeline.testing.races import WaitingLocks
from pipeline.testing.schedule import Schedule, ScheduledWorld
from pipeline.testing.simulated import SimulatedStore, World
from pipeline.testing.simulated_registry import SimulatedRegistry

MODEL = "fraud"
NAMES = ("fraud", "fraud-challenger", "fraud.eu")
VERSIONS = (1, 2, 3)
GATE = Report(
    comparisons=(
        Comparison(subject="onnx", output="y", rows=8, mismatched=0, max_absolute_error=2e-7),
    ),
    samples_origin="input example",
    relative_tolerance=1e-3,
    absolute_tolerance=1e-5,
)


def release(name: str, version: int) -> Release:
    config = (
        f'name: "{name}" backend: "onnxruntime" max_batch_size: 64\n'
        'input [{ name: "X|<b>", data_type: TYPE_FP32, dims: [13] }]\n'
        'output [{ name: "label", data_type: TYPE_STRING, dims: [1] }]\n'
        "dynamic_batching { max_queue_delay_microseconds: 100 }\n"
        "instance_group [{ kind: KIND_CPU, count: 2 }]"
    )
    lineage = Lineage(
        registered_model=MODEL,
        registered_version=version,
        run_id=f"run-{version}",
        source="s",
        source_digest=f"sha256:source{version}",
        flavor="sklearn",
    )
    manifest = Manifest(
        model=name,
        version=version,
        config_sha256="",
        files=(FileDigest(path="model.onnx", size=1, sha256=f"{version}"),),
        lineage=lineage,
        tools={},
    )
    return Release(
        manifest=manifest, config=config, relative_tolerance=1e-3, absolute_tolerance=1e-5
    )


def proof(version: int) -> Confirmation:
    answer = Comparison(
        subject="triton grpc", output="label", rows=8, mismatched=0, max_absolute_error=1e-7
    )
    return Confirmation(
        version=version,
        comparisons=(answer,),
        seconds_to_ready=1.0,
        latency_milliseconds={"grpc": 1.5, "http": 1.61},
    )


class Scene:
    """A registry with three versions, and what is served under which name."""

    def __init__(self, world: World | None = None) -> None:
        world = world or World()
        self.registry = SimulatedRegistry(world.step)
        for version in VERSIONS:
            self.registry.register(MODEL, version, {"owner": "eve", "tritonpipe.instances": "2"})
        self.journal = Journal(SimulatedStore(world))
        self.locks = WaitingLocks(cast("Any", world))
        self.servers = Servers(
            registry=cast("Any", self.registry),
            repository=cast("Any", None),
            journal=self.journal,
            replicas=cast("Any", (SimpleNamespace(http_address="triton:8000"),)),
            locks=self.locks,
        )
        rows = {"x": np.zeros((1, 1), np.float32)}
        for name in NAMES:
            for version in VERSIONS:
                self.journal.keep(release(name, version), Samples(inputs=rows, outputs=rows))
        self.served: dict[str, int] = {}

    def version(self, version: int) -> ModelVersion:
        return self.registry.versions[MODEL, version]

    def prove(self, name: str, version: int) -> None:
        """What serving does with the lock of the name held."""
        with self.locks.hold(name, seconds=1e6, tell=lambda _text: None):
            digest = release(name, version).manifest.digest
            for event in (COMMITTING, CONFIRMED):
                self.journal.append(
                    name, action=PROMOTE, event=event, version=version, previous=None, digest=digest
                )
            self.served[name] = version

    def record(self, name: str, version: int, **more: Any) -> str:
        return record_served(
            self.servers,
            self.version(version),
            release(name, version),
            proof(version),
            seconds={"export": 1.0},
            **more,
        )

    def serve(self, name: str, version: int, **more: Any) -> None:
        self.prove(name, version)
        self.record(name, version, **more)

    def take_away(self, name: str) -> None:
        """What taking away does with the lock of the name held."""
        with self.locks.hold(name, seconds=1e6, tell=lambda _text: None):
            for version in VERSIONS:
                self.journal.append(
                    name,
                    action=RETIRE,
                    event=COLLECTED,
                    version=version,
                    previous=None,
                    reason="no wish",
                )
            self.served.pop(name, None)

    def retire(self, name: str) -> None:
        self.take_away(name)
        record_retirement(self.servers, release(name, 1).manifest.lineage, name)

    def fail(self, version: int, error: Exception) -> None:
        with (
            pytest.raises(type(error)) as caught,
            failures_recorded(cast("Any", self.registry), self.version(version), "fraud-new"),
        ):
            raise error
        assert caught.value is error

    def tags(self, version: int) -> dict[str, str]:
        tags = self.registry.tags(MODEL, version)
        return {k.removeprefix("tritonpipe."): v for k, v in tags.items()}

    def assert_true(self) -> None:
        """Every version says where it is served, and nothing else."""
        for version in VERSIONS:
            names = sorted(name for name, number in self.served.items() if number == version)
            tags = self.tags(version)
            assert sorted(claims_of(self.registry.tags(MODEL, version))) == names
            assert (tags.get("state") == SERVING) == bool(names)
            if names:
                assert tags["triton_model"] == ", ".join(names)
                assert "reason" not in tags
            elif "state" in tags:
                assert tags["reason"]
                assert not tags["reason"].endswith(f"serves version {version}")
            assert (tags["owner"], tags["instances"]) == ("eve", "2")


EVENTS = st.one_of(
    st.tuples(st.just("serve"), st.sampled_from(NAMES), st.sampled_from(VERSIONS)),
    st.tuples(st.just("retire"), st.sampled_from(NAMES), st.none()),
    st.tuples(st.just("fail"), st.none(), st.sampled_from(VERSIONS)),
)
Event = tuple[str, Any, Any]


def act(scene: Scene, event: Event) -> None:
    kind, name, version = event
    if kind == "serve":
        scene.serve(name, version)
    elif kind == "retire":
        scene.retire(name)
    else:
        scene.fail(version, ConfirmationError("it answers otherwise"))


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=8))
def test_whatever_happens_each_version_says_where_it_is_served(events: list[Event]) -> None:
    scene = Scene()
    for event in events:
        act(scene, event)
        scene.assert_true()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(EVENTS, max_size=3),
    st.lists(EVENTS, min_size=2, max_size=4),
    st.integers(0, 2**16),
)
def test_also_when_it_happens_at_once_under_any_names(
    before: list[Event], at_once: list[Event], seed: int
) -> None:
    schedule = Schedule(seed)
    scene = Scene(ScheduledWorld(schedule))
    for event in before:
        act(scene, event)
    works = {
        f"{number} {event}": partial(act, scene, event) for number, event in enumerate(at_once)
    }
    assert set(schedule.run(works).values()) == {None}
    scene.assert_true()


@pytest.mark.parametrize("seed", range(150))
def test_of_several_under_one_name_the_registry_knows_the_last(seed: int) -> None:
    schedule = Schedule(seed)
    scene = Scene(ScheduledWorld(schedule))
    scene.serve("fraud", 1)
    events: list[Event] = [
        ("serve", "fraud", 2),
        ("serve", "fraud", 1),
        ("retire", "fraud", None),
        ("serve", "fraud", 3),
    ]
    events = events[: 2 + seed % 3]
    works = {f"{number} {event}": partial(act, scene, event) for number, event in enumerate(events)}
    assert set(schedule.run(works).values()) == {None}
    scene.assert_true()


def test_who_is_late_leaves_what_was_proven_since() -> None:
    scene = Scene()
    scene.prove("fraud", 1)
    scene.serve("fraud", 2)
    before = scene.tags(2)
    assert scene.record("fraud", 1) == "nothing on fraud/1: fraud serves version 2 by now"
    scene.assert_true()
    assert scene.tags(2) == before
    assert (scene.tags(1)["state"], scene.tags(1)["reason"]) == (
        "superseded",
        "fraud serves version 2",
    )
    scene.take_away("fraud")
    scene.serve("fraud", 3)
    record_retirement(scene.servers, release("fraud", 1).manifest.lineage, "fraud")
    scene.assert_true()
    scene.prove("fraud", 1)
    scene.retire("fraud")
    scene.record("fraud", 1)
    scene.assert_true()
    assert scene.tags(1)["reason"] == "fraud was taken away: no wish"


def test_a_commit_that_is_not_proven_does_not_count() -> None:
    scene = Scene()
    scene.prove("fraud", 1)
    for event in (COMMITTING, FAILED):
        scene.journal.append("fraud", action=PROMOTE, event=event, version=2, previous=1)
        scene.record("fraud", 1)
        scene.assert_true()


@pytest.mark.parametrize(
    "event", [("serve", "fraud", 2), ("retire", "fraud", None), ("serve", "fraud-challenger", 1)]
)
def test_broken_at_any_request_it_is_made_up_for_by_recording_again(event: Event) -> None:
    for fatal in range(100):
        scene = Scene()
        scene.serve("fraud", 1, report=GATE)
        scene.serve("fraud.eu", 1)
        left = [fatal]

        def step(left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise UnavailableError("MLflow does not answer")

        scene.registry.step = step
        try:
            act(scene, event)
        except UnavailableError as error:
            is_served = "is served and confirmed, but not recorded" in str(error)
            assert is_served == (event[0] == "serve")
        else:
            assert fatal > 3
            return
        scene.registry.step = lambda: None
        act(scene, event)
        scene.assert_true()
    pytest.fail("it never ends")


def test_a_version_says_what_is_served_how_well_and_on_whose_behalf() -> None:
    scene = Scene()
    scene.serve("fraud", 2, alias="champion", report=GATE)
    tags = scene.tags(2)
    assert (tags["state"], tags["triton_model"], tags["triton_version"]) == (SERVING, "fraud", "2")
    assert tags["alias"] == "champion"
    assert tags["latency_milliseconds"] == "grpc 1.5, http 1.6"
    assert float(tags["max_absolute_error"]) == pytest.approx(1e-7)
    assert tags["parity"].startswith("1 comparisons agree within 1e-05 + 0.001·|expected|")
    assert tags["release_digest"] == release("fraud", 2).manifest.digest
    assert tags["model_digest"].startswith("sha256:")
    assert tags["source_digest"] == "sha256:source2"
    assert tags["since"] == tags["confirmed_at"]
    recorded = {k for k in scene.registry.tags(MODEL, 2) if is_recorded(k)}
    assert {k.removeprefix("tritonpipe.") for k in recorded} == tags.keys() - {"owner", "instances"}


def test_confirmed_again_it_keeps_since_when_and_on_whose_behalf() -> None:
    scene = Scene()
    scene.serve("fraud", 2, alias="champion", report=GATE)
    scene.registry.record(scene.version(2), {"tritonpipe.serves.fraud": json.dumps(
        {"alias": "champion", "since": "2026-01-01T00:00:00+00:00"})})  # fmt: skip
    scene.serve("fraud", 2)
    tags = scene.tags(2)
    assert (tags["alias"], tags["since"]) == ("champion", "2026-01-01T00:00:00+00:00")
    assert tags["confirmed_at"] > tags["since"]
    assert "1 comparisons agree" in tags["parity"]


def test_of_two_names_the_tags_tell_what_is_left() -> None:
    scene = Scene()
    scene.serve("fraud", 1, alias="champion")
    scene.serve("fraud-challenger", 1, alias="challenger")
    tags = scene.tags(1)
    assert (tags["triton_model"], tags["alias"]) == (
        "fraud, fraud-challenger",
        "champion, challenger",
    )
    scene.serve("fraud", 2, alias="champion")
    tags = scene.tags(1)
    assert (tags["state"], tags["triton_model"], tags["alias"]) == (
        SERVING, "fraud-challenger", "challenger",
    )  # fmt: skip
    assert tags["release_digest"] == release("fraud-challenger", 1).manifest.digest
    scene.retire("fraud-challenger")
    tags = scene.tags(1)
    assert (tags["state"], tags["reason"]) == (
        "retired",
        "fraud-challenger was taken away: no wish",
    )


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (RefusedError("it disagrees", report=GATE), "refused"),
        (ModelError("it cannot be exported"), "refused"),
        (ConfirmationError("the server answers otherwise"), "failed"),
        (UnavailableError("no server answers"), None),
    ],
)
def test_what_failed_says_why_unless_it_is_served_or_may_heal(
    error: Exception, state: str | None
) -> None:
    scene, reason = Scene(), str(error)
    scene.fail(2, error)
    tags = scene.tags(2)
    assert tags.get("state") == state
    assert tags.get("reason") == (reason if state else None)
    page = "http://registry/run-2/artifacts/tritonpipe/fraud-new-2/refused.html"
    was_kept = isinstance(error, RefusedError)
    assert str(error) == (f"{reason}\n  report: {page}" if was_kept else reason)
    assert ("run-2/fraud-new-2/refused.html" in scene.registry.reports) == was_kept
    scene.serve("fraud-challenger", 2)
    scene.fail(2, error)
    scene.assert_true()


@pytest.mark.parametrize(
    "failure", [UnavailableError("MLflow does not answer"), ValueError("a bug of its client")]
)
def test_what_keeps_a_failure_from_being_recorded_does_not_hide_it(failure: Exception) -> None:
    def step() -> None:
        raise failure

    scene = Scene()
    scene.registry.step = step
    scene.fail(2, ModelError("it cannot be exported"))


def test_a_tag_that_somebody_has_edited_still_counts_as_a_claim() -> None:
    scene = Scene()
    scene.serve("fraud", 1)
    scene.registry.record(scene.version(1), {"tritonpipe.serves.fraud": "by hand"})
    scene.serve("fraud", 2)
    scene.assert_true()


def test_the_report_is_one_screen_and_says_of_when_it_is() -> None:
    scene = Scene()
    scene.serve("fraud", 2, alias="champion", report=GATE)
    files = {k.removeprefix("run-2/fraud-2/"): v for k, v in scene.registry.reports.items()}
    assert files.keys() == {
        "report.html", "report.md", "report.json", "parity.html", "parity.json",
    }  # fmt: skip
    tags = scene.tags(2)
    for text in (files["report.html"], files["report.md"]):
        assert f"at {tags['confirmed_at']}" in text
        assert "see the tag tritonpipe.state" in text
        for fact in (
            "fraud, version 2, for the alias champion", "1 comparisons", "1.5 ms over grpc",
            "batches of up to 64", "100 µs", "2 on CPU", tags["release_digest"],
            tags["model_digest"], "triton:8000",
        ):  # fmt: skip
            assert fact in text, fact
        assert "X|<b>: FP32[?,13]" not in text
    assert json.loads(files["report.json"])["manifest"]["model"] == "fraud"
    scene.serve("fraud", 2)
    assert "1 comparisons agree within" in scene.registry.reports["run-2/fraud-2/report.md"]


@pytest.mark.parametrize("data_type", list(DataType))
def test_the_report_shows_how_to_ask_with_every_type(data_type: DataType) -> None:
    scene = Scene()
    config = release("fraud", 1).config.replace("TYPE_FP32", data_type.triton)
    asked = replace(release("fraud", 1), config=config)
    record_served(scene.servers, scene.version(1), asked, proof(1), seconds={})
    report = scene.registry.reports["run-1/fraud-1/report.md"]
    program = report.partition("```python\n")[2].partition("answer =")[0]
    made: dict[str, Any] = {}
    exec(compile(program, "how to ask it", "exec"), made)
    [tensor] = made["inputs"]
    assert (tensor.name(), tensor.shape()) == ("X|<b>", [1, 13])
