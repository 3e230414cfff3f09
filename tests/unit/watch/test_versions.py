"""What is remembered of the versions that wait for something."""

from __future__ import annotations

from typing import Any, cast

from pipeline.testing.simulated_registry import SimulatedRegistry
from pipeline.watch.versions import Versions
from pipeline.watch.wishes import Wish


def wish(version: int) -> Wish:
    return Wish(model="fraud", registered_model="fraud", alias="champion", version=version)


class Scene:
    def __init__(self) -> None:
        self.requests = 0
        self.registry = SimulatedRegistry(self._count)
        self.registry.register("fraud", 1)
        self.registry.register("fraud", 2)
        self.versions = Versions(cast("Any", self.registry))

    def _count(self) -> None:
        self.requests += 1

    def asked(self, version: int) -> bool:
        before = self.requests
        self.versions.wished(wish(version))
        return self.requests > before


def test_a_version_is_asked_for_once_and_again_when_something_is_notified() -> None:
    scene = Scene()
    assert [scene.asked(1) for _round in range(3)] == [True, False, False]
    scene.versions.forget()
    assert scene.asked(1)
    assert scene.versions.wished_now(wish(1)) is not None
    assert scene.requests == 3


def test_what_nobody_wishes_any_more_is_forgotten_and_all_else_is_not() -> None:
    scene = Scene()
    for version in (1, 2, 404):
        assert scene.asked(version)
    scene.versions.keep_only({wish(2), wish(404)})
    assert [scene.asked(version) for version in (1, 2, 404)] == [True, False, False]
