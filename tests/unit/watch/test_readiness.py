"""Which models a server does not serve."""

from __future__ import annotations

from typing import Any, cast

from pipeline.errors import UnavailableError
from pipeline.watch import readiness
from pipeline.watch.readiness import Readiness


class Triton:
    def __init__(self) -> None:
        self.ready: set[str] = set()
        self.is_down = False
        self.asked: list[str] = []

    def require_live(self) -> None:
        if self.is_down:
            raise UnavailableError("Triton does not answer")

    def is_ready(self, model: str, version: int) -> bool:
        self.asked.append(model)
        return model in self.ready


def opened(*servers: Triton) -> Readiness:
    return Readiness(cast("Any", servers))


def test_a_model_is_unserved_when_it_is_missed_twice_in_a_row() -> None:
    triton = Triton()
    readiness = opened(triton)
    published = {"a": 1, "b": 2}
    triton.ready = {"a"}
    assert readiness.unserved(published) == frozenset()
    assert readiness.unserved(published) == {"b"}
    triton.ready = {"a", "b"}
    assert readiness.unserved(published) == frozenset()


def test_one_server_of_several_is_enough_to_miss_it() -> None:
    first, second = Triton(), Triton()
    first.ready = {"a"}
    readiness = opened(first, second)
    readiness.unserved({"a": 1})
    assert readiness.unserved({"a": 1}) == {"a"}


def test_a_server_that_is_down_says_nothing_of_any_model() -> None:
    triton = Triton()
    triton.is_down = True
    readiness = opened(triton)
    assert [readiness.unserved({"a": 1}) for _ in range(3)] == [frozenset()] * 3
    assert triton.asked == []


def test_work_on_a_model_begins_the_count_anew_and_what_is_gone_is_forgotten() -> None:
    triton = Triton()
    readiness = opened(triton)
    readiness.unserved({"a": 1, "b": 1})
    readiness.forget("a")
    assert readiness.unserved({"a": 1, "b": 1}) == {"b"}
    assert readiness.unserved({"a": 1}) == {"a"}


def test_after_work_that_failed_a_model_is_in_doubt_until_it_is_seen() -> None:
    triton = Triton()
    readiness = opened(triton)
    readiness.doubt("a")
    triton.is_down = True
    assert readiness.unserved({"a": 1}) == frozenset()
    assert readiness.doubted == {"a"}
    triton.is_down = False
    assert readiness.unserved({"a": 1}) == {"a"}
    triton.ready = {"a"}
    assert readiness.unserved({"a": 1}) == readiness.doubted == frozenset()


def test_every_model_has_its_turn_and_a_round_asks_for_few(monkeypatch: Any) -> None:
    monkeypatch.setattr(readiness, "_MODELS_PER_ROUND", 10)
    triton = Triton()
    models = {f"m{n:03}": 1 for n in range(95)}
    triton.ready = set(models)
    asked = opened(triton)
    for _round in range(10):
        before = len(triton.asked)
        asked.unserved(models)
        assert len(triton.asked) - before == 10
    assert set(triton.asked) == set(models)
