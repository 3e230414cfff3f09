"""Whether the registry says what is served, and why something is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest

from pipeline.artifacts import ModelVersion
from pipeline.errors import UnavailableError
from pipeline.flows.claims import Claim, claim_tag, claim_text
from pipeline.testing.simulated_registry import SimulatedRegistry
from pipeline.watch import recorded
from pipeline.watch.events import WARNING, Event
from pipeline.watch.memory import Failure
from pipeline.watch.outcomes import DIED, LAST_RETRY_SECONDS
from pipeline.watch.recorded import Reasons, Recorded
from pipeline.watch.versions import LATELY_SECONDS, Versions
from pipeline.watch.wishes import Wish

WISH = Wish(model="fraud", registered_model="fraud", alias="champion", version=2)
SERVED = {"tritonpipe.state": "serving", claim_tag("fraud"): claim_text(Claim())}


def failure(kind: str = "ModelError", message: str = "it has no signature") -> Failure:
    return Failure(
        fingerprint="f",
        wish=str(WISH),
        kind=kind,
        message=message,
        hint="",
        attempts=3,
        at=0.0,
        retry_at=None,
    )


@dataclass
class Clock:
    """A time that passes when the tests say so."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(recorded, "time", clock)
    return clock


class Scene:
    """A registry that counts requests, and a watcher's memory of it."""

    def __init__(self, **tags: str) -> None:
        self.requests = 0
        self.registry = SimulatedRegistry(self._count)
        self.registry.register("fraud", 1)
        self.registry.register("fraud", 2, tags)
        self.versions = Versions(cast("Any", self.registry))
        self.recorded = Recorded(cast("Any", self.registry))
        self.told: list[Event] = []
        self.reasons = Reasons(cast("Any", self.registry), self.versions, self.told.append)

    def _count(self) -> None:
        self.requests += 1

    def explain(self, what: Failure) -> dict[str, str]:
        self.reasons.explain({WISH: what})
        return {
            key.removeprefix("tritonpipe."): value
            for key, value in self.registry.tags("fraud", 2).items()
        }

    def unrecorded(self) -> bool:
        return bool(self.recorded.unrecorded({"fraud": WISH}))


@pytest.mark.parametrize(
    ("kind", "state"),
    [("ModelError", "refused"), ("RefusedError", "refused"), (DIED, "failed"), ("Bug", "failed")],
)
def test_what_is_not_tried_again_says_why_and_is_told_once(kind: str, state: str) -> None:
    scene = Scene()
    for _round in range(3):
        tags = scene.explain(failure(kind))
        assert (tags["state"], tags["reason"]) == (state, "it has no signature")
    once = scene.requests
    scene.explain(failure(kind))
    assert scene.requests == once


@pytest.mark.parametrize(
    "message", ["\x00", "bad \x00 \udcff", "a\n" * 400, "", " it has", "é" * 499]
)
def test_a_reason_that_is_not_kept_as_it_is_is_told_once_too(message: str) -> None:
    scene = Scene()
    scene.explain(failure(message=message))
    once = scene.requests
    scene.explain(failure(message=message))
    assert (scene.requests, scene.told) == (once, [])


@pytest.mark.parametrize("length", [20, 5000])
def test_what_says_so_already_is_left_alone(length: int) -> None:
    scene = Scene()
    told = scene.explain(failure(message="x" * length))
    assert scene.explain(failure(message="x" * length + "\n  report: http://mlflow")) == told
    assert scene.explain(failure(message="another reason"))["reason"] == "another reason"


def test_a_failure_that_was_just_recorded_is_not_recorded_again() -> None:
    scene = Scene()
    assert scene.versions.wished(WISH) is not None
    tags = {"tritonpipe.state": "refused", "tritonpipe.reason": "it has"}
    scene.registry.record(scene.registry.versions["fraud", 2], tags)
    assert scene.explain(failure())["reason"] == "it has"


def test_what_is_served_under_another_name_stays_so() -> None:
    scene = Scene(**SERVED)
    assert scene.explain(failure())["state"] == "serving"


def test_a_version_that_is_gone_needs_no_words() -> None:
    scene = Scene()
    del scene.registry.versions["fraud", 2]
    scene.reasons.explain({WISH: failure()})
    assert scene.told == []
    assert scene.registry.tags("fraud", 1) == {}


def test_what_says_that_it_is_served_is_looked_up_once() -> None:
    scene = Scene(**SERVED)
    assert not any(scene.unrecorded() for _round in range(3))
    assert scene.requests == 1


@pytest.mark.parametrize("is_notified", [True, False])
def test_what_does_not_is_looked_up_when_something_is_notified_or_after_a_while(
    is_notified: bool, clock: Clock
) -> None:
    scene = Scene()
    assert [scene.unrecorded() for _round in range(10)] == [True] * 10
    assert scene.requests == 1
    scene.registry.record(scene.registry.versions["fraud", 2], SERVED)
    assert scene.unrecorded()
    if is_notified:
        scene.recorded.forget()
    else:
        clock.now += LATELY_SECONDS
    assert not scene.unrecorded()


def test_a_wish_that_was_not_looked_up_yet_is_at_once() -> None:
    scene = Scene()
    assert scene.unrecorded()
    scene.registry.register("other", 1, {**SERVED, claim_tag("other"): "{}"})
    other = Wish(model="other", registered_model="other", alias="champion", version=1)
    assert scene.recorded.unrecorded({"fraud": WISH, "other": other}) == {"fraud"}


def test_what_its_own_work_has_recorded_is_not_looked_up() -> None:
    another = Scene()
    assert another.unrecorded()
    another.recorded.add(WISH)
    assert not another.unrecorded()


def test_another_wish_is_looked_up_anew() -> None:
    scene = Scene(**SERVED)
    assert not scene.unrecorded()
    assert not scene.recorded.unrecorded({})
    scene.registry.record(scene.registry.versions["fraud", 2], dict.fromkeys(SERVED))
    assert scene.unrecorded()


@pytest.mark.parametrize("claim", ["", "[" * 100_000, '{"since": [1]}'])
def test_a_claim_that_cannot_be_read_still_says_where(claim: str) -> None:
    assert not Scene(**{**SERVED, claim_tag("fraud"): claim}).unrecorded()


class TestWhatFailsWhileOneIsExplained:
    """It is about that one; the others, and the round, go on."""

    OTHER = Wish(model="other", registered_model="other", alias="champion", version=1)

    @pytest.fixture
    def scene(self, monkeypatch: pytest.MonkeyPatch) -> Scene:
        scene = Scene()
        scene.registry.register("other", 1)
        record = scene.registry.record
        self.error: Exception | None = None

        def refuse(version: ModelVersion, tags: Mapping[str, str | None]) -> None:
            if version.name == "fraud" and self.error:
                raise self.error
            record(version, tags)

        monkeypatch.setattr(scene.registry, "record", refuse)
        return scene

    @pytest.mark.parametrize("error", [UnavailableError("it refuses NUL"), ValueError("NUL")])
    def test_it_is_warned_of_and_left_for_a_while(
        self, scene: Scene, clock: Clock, error: Exception
    ) -> None:
        self.error = error
        failures = {WISH: failure(), self.OTHER: failure()}
        for _round in range(5):
            scene.reasons.explain(failures)
        assert scene.registry.tags("other", 1)["tritonpipe.state"] == "refused"
        assert [(e.kind, e.model, e.wish) for e in scene.told] == [(WARNING, "fraud", str(WISH))]
        assert "NUL" in scene.told[0].message
        assert ("please report" in scene.told[0].message) == isinstance(error, ValueError)
        clock.now += LAST_RETRY_SECONDS
        self.error = None
        scene.reasons.explain(failures)
        assert scene.registry.tags("fraud", 2)["tritonpipe.state"] == "refused"
        assert len(scene.told) == 1

    def test_a_registry_that_is_gone_is_asked_once_a_round(self, scene: Scene) -> None:
        scene.registry.step = self.gone
        failures = {WISH: failure(), self.OTHER: failure()}
        scene.reasons.explain(failures)
        assert [e.model for e in scene.told] == ["fraud"]
        scene.reasons.explain(failures)
        assert [e.model for e in scene.told] == ["fraud", "other"]

    def gone(self) -> None:
        raise UnavailableError("MLflow does not answer")


def test_a_second_version_that_says_so_is_one_too_many() -> None:
    scene = Scene(**SERVED)
    scene.registry.record(scene.registry.versions["fraud", 1], SERVED)
    assert scene.unrecorded()
