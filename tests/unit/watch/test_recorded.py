"""Whether the registry says what is served, and why something is not."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pipeline.flows.claims import Claim, claim_tag, claim_text
from pipeline.testing.simulated_registry import SimulatedRegistry
from pipeline.watch.memory import Failure
from pipeline.watch.outcomes import DIED
from pipeline.watch.recorded import Recorded, explain
from pipeline.watch.versions import Versions
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


class Scene:
    """A registry that counts requests, and a watcher's memory of it."""

    def __init__(self, **tags: str) -> None:
        self.requests = 0
        self.registry = SimulatedRegistry(self._count)
        self.registry.register("fraud", 1)
        self.registry.register("fraud", 2, tags)
        self.versions = Versions(cast("Any", self.registry))
        self.recorded = Recorded(cast("Any", self.registry))

    def _count(self) -> None:
        self.requests += 1

    def explain(self, what: Failure) -> dict[str, str]:
        explain(cast("Any", self.registry), self.versions, WISH, what)
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
    explain(cast("Any", scene.registry), scene.versions, WISH, failure())
    assert scene.registry.tags("fraud", 1) == {}


def test_what_says_that_it_is_served_is_looked_up_once() -> None:
    scene = Scene(**SERVED)
    assert not any(scene.unrecorded() for _round in range(3))
    assert scene.requests == 1


def test_what_does_not_is_looked_up_until_it_does_or_its_work_says_so() -> None:
    scene = Scene()
    assert [scene.unrecorded() for _round in range(3)] == [True] * 3
    scene.registry.record(scene.registry.versions["fraud", 2], SERVED)
    assert not scene.unrecorded()
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


def test_a_second_version_that_says_so_is_one_too_many() -> None:
    scene = Scene(**SERVED)
    scene.registry.record(scene.registry.versions["fraud", 1], SERVED)
    assert scene.unrecorded()
