"""What is to be done, from what is wished and what is there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.watch.difference import (
    AWAITING,
    HELD,
    KEPT,
    PENDING,
    PROMOTING,
    REFUSED,
    RETIRING,
    RETRYING,
    SERVING,
    Difference,
    Policy,
    Seen,
    Standing,
    difference,
    still_failing,
)
from pipeline.watch.memory import Failure, Memory, Origin
from pipeline.watch.outcomes import LAST_RETRY_SECONDS
from pipeline.watch.published import Published
from pipeline.watch.wishes import Wish, Wishes

NOW = 1_000_000.0
FRAUD = Origin(registered_model="fraud", alias="champion")


def wish(version: int, model: str = "fraud") -> Wish:
    return Wish(model=model, registered_model=model, alias="champion", version=version)


def published(version: int | None, model: str = "fraud", **changes: object) -> Published:
    return replace(
        Published(model=model, version=version, registered_model=model),
        **changes,  # type: ignore[arg-type]
    )


def failure(retry_at: float | None, fingerprint: str = "f", at: float = NOW - 1) -> Failure:
    return Failure(
        fingerprint=fingerprint,
        wish="fraud/8 (champion)",
        kind="ModelError",
        message="it cannot be exported",
        hint="",
        attempts=1,
        at=at,
        retry_at=retry_at,
    )


def seen(*wishes: Wish, there: tuple[Published, ...] = (), **more: object) -> Seen:
    basis = Seen(
        wishes=Wishes(by_model={w.model: w for w in wishes}, rules={}, problems={}, registered=5),
        published={p.model: p for p in there},
        memory=Memory(),
        now=NOW,
    )
    return replace(basis, **more)  # type: ignore[arg-type]


def only(found: Difference) -> Standing:
    (standing,) = found.standings
    return standing


def decide(value: Seen, *, unload: bool = False) -> Difference:
    return difference(value, Policy(unload=unload, unload_after_seconds=60.0))


def test_what_is_wished_and_not_published_is_promoted() -> None:
    assert decide(seen(wish(8))).promote == (wish(8),)
    assert decide(seen(wish(8), there=(published(7),))).promote == (wish(8),)


def test_what_is_published_and_proven_needs_nothing() -> None:
    found = decide(seen(wish(8), there=(published(8),)))
    assert only(found).state == SERVING
    assert (found.promote, found.retire, found.cancel, found.wake_at) == ((), {}, {}, None)


@pytest.mark.parametrize(
    "there",
    [
        published(8, is_proven=False),
        published(None, is_proven=False),
        published(8, registered_model="another"),
    ],
    ids=["open attempt", "half way", "of another registered model"],
)
def test_what_is_not_proven_to_be_the_wish_is_promoted(there: Published) -> None:
    assert decide(seen(wish(8), there=(there,))).promote == (wish(8),)


def test_what_a_server_does_not_serve_is_proven_again() -> None:
    found = decide(seen(wish(8), there=(published(8),), unserved=frozenset({"fraud"})))
    assert found.promote == (wish(8),)


def test_what_the_registry_was_not_told_is_proven_again_and_recorded() -> None:
    value = seen(wish(8), there=(published(8),), unrecorded=frozenset({"fraud"}))
    assert decide(value).promote == (wish(8),)
    assert "registry" in only(decide(value)).reason


@pytest.mark.parametrize("lacks", ["unserved", "unrecorded"])
def test_a_proven_version_is_tried_again_for_ever_but_not_all_the_time(lacks: str) -> None:
    for retry_at, rests_until in ((NOW + 5, NOW + 5), (None, NOW - 1 + LAST_RETRY_SECONDS)):
        memory = Memory(failures={"fraud": failure(retry_at)})
        parts = {lacks: {"fraud"}, "doubted": {"fraud"}, "memory": memory}
        value = seen(wish(8), there=(published(8),), fingerprints={"fraud": "f"}, **parts)
        assert still_failing(value) == memory.failures
        assert (only(decide(value)).state, decide(value).wake_at) == (RETRYING, rests_until)
        assert decide(replace(value, now=rests_until)).promote == (wish(8),)


def test_its_failure_is_forgotten_when_it_is_seen_to_be_served() -> None:
    memory = Memory(failures={"fraud": failure(NOW + 5)})
    value = seen(wish(8), there=(published(8),), memory=memory, doubted={"fraud"})
    assert still_failing(value) == memory.failures
    assert still_failing(replace(value, doubted=frozenset())) == {}


def test_a_version_that_somebody_rolled_back_from_waits_for_another_wish() -> None:
    there = published(7, taken_back={8: "eve@host"})
    found = decide(seen(wish(8), there=(there,)))
    assert (only(found).state, found.promote) == (HELD, ())
    assert "eve@host" in only(found).reason
    under_way = decide(seen(wish(8), there=(replace(there, is_proven=False),)))
    assert (only(under_way).state, under_way.promote) == (HELD, ())
    assert decide(seen(wish(9), there=(there,))).promote == (wish(9),)
    assert only(decide(seen(wish(7), there=(there,)))).state == SERVING


def test_what_lacks_an_approval_waits_for_it_and_what_is_served_stays() -> None:
    value = seen(wish(8), there=(published(7),), unmet={"fraud": "its tag x is missing"})
    found = decide(value)
    assert (only(found).state, only(found).reason) == (AWAITING, "its tag x is missing")
    assert (found.promote, only(found).published) == ((), 7)
    assert decide(replace(value, unmet={"fraud": ""})).promote == (wish(8),)


class TestFailures:
    def test_a_refused_wish_is_not_tried_again(self) -> None:
        memory = Memory(failures={"fraud": failure(None)})
        found = decide(seen(wish(8), memory=memory, fingerprints={"fraud": "f"}))
        assert (only(found).state, found.promote) == (REFUSED, ())
        assert only(found).reason == "it cannot be exported"

    def test_until_anything_about_it_changes(self) -> None:
        memory = Memory(failures={"fraud": failure(None)})
        found = decide(seen(wish(8), memory=memory, fingerprints={"fraud": "another"}))
        assert found.promote == (wish(8),)

    def test_what_can_heal_waits_for_its_time_and_says_when_that_is(self) -> None:
        memory = Memory(failures={"fraud": failure(NOW + 5)})
        value = seen(wish(8), memory=memory, fingerprints={"fraud": "f"})
        found = decide(value)
        assert (only(found).state, found.promote, found.wake_at) == (RETRYING, (), NOW + 5)
        assert decide(replace(value, now=NOW + 5)).promote == (wish(8),)

    def test_a_clock_that_was_set_back_does_not_make_it_wait(self) -> None:
        memory = Memory(failures={"fraud": failure(NOW + 9_005, at=NOW + 9_000)})
        assert decide(seen(wish(8), memory=memory, fingerprints={"fraud": "f"})).promote

    def test_it_is_forgotten_when_the_wish_is_fulfilled_or_gone(self) -> None:
        memory = Memory(failures={"fraud": failure(None), "gone": failure(None)})
        value = seen(wish(8), memory=memory)
        assert set(still_failing(value)) == {"fraud"}
        assert still_failing(replace(value, published={"fraud": published(8)})) == {}

    def test_those_never_tried_come_first(self) -> None:
        memory = Memory(failures={"a": failure(NOW - 1)})
        value = seen(wish(1, "a"), wish(1, "b"), memory=memory, fingerprints={"a": "f"})
        assert [w.model for w in decide(value).promote] == ["b", "a"]


class TestWorkUnderWay:
    def test_it_goes_on_while_its_wish_stands(self) -> None:
        found = decide(seen(wish(8), running={"fraud": wish(8)}))
        assert (only(found).state, found.promote, found.cancel) == (PROMOTING, (), {})

    def test_the_newest_wish_wins(self) -> None:
        found = decide(seen(wish(9), running={"fraud": wish(8)}))
        assert found.promote == ()
        assert found.cancel == {"fraud": "fraud/9 (champion) is wished now"}

    def test_it_ends_when_nothing_is_wished_any_more(self) -> None:
        assert set(decide(seen(running={"fraud": wish(8)})).cancel) == {"fraud"}

    def test_taking_away_ends_when_it_is_wished_again(self) -> None:
        assert set(decide(seen(wish(8), running={"fraud": None})).cancel) == {"fraud"}
        assert decide(seen(running={"fraud": None})).cancel == {}


class TestAnAliasThatIsRemoved:
    SERVED = Memory(origins={"fraud": FRAUD})

    def test_the_model_is_served_on_by_default(self) -> None:
        found = decide(seen(there=(published(8),), memory=self.SERVED))
        assert (only(found).state, found.retire) == (KEPT, {})

    def test_or_taken_away_after_a_while(self) -> None:
        value = seen(there=(published(8),), memory=self.SERVED, unwished_since={"fraud": NOW - 59})
        waiting = decide(value, unload=True)
        assert (waiting.retire, waiting.wake_at) == ({}, NOW + 1)
        late = decide(replace(value, now=NOW + 1), unload=True)
        assert (only(late).state, late.retire) == (RETIRING, {"fraud": FRAUD})

    def test_what_could_not_be_taken_away_is_tried_again_in_its_time(self) -> None:
        kept = replace(failure(NOW + 5), fingerprint="", wish="")
        memory = replace(self.SERVED, failures={"fraud": kept})
        value = seen(there=(published(8),), memory=memory, unwished_since={"fraud": NOW - 90})
        waiting = decide(value, unload=True)
        assert (only(waiting).state, waiting.retire, waiting.wake_at) == (KEPT, {}, NOW + 5)
        assert only(waiting).reason == kept.message
        assert still_failing(value) == {"fraud": kept}
        assert decide(replace(value, now=NOW + 5), unload=True).retire == {"fraud": FRAUD}
        again = replace(value, wishes=seen(wish(9)).wishes, fingerprints={"fraud": "f"})
        assert decide(again, unload=True).promote == (wish(9),)

    def test_what_nobody_wished_through_the_loop_is_never_taken_away(self) -> None:
        assert decide(seen(there=(published(8),)), unload=True).retire == {}

    def test_a_registry_without_any_model_takes_nothing_away(self) -> None:
        empty = Wishes(by_model={}, rules={}, problems={}, registered=0)
        value = seen(
            there=(published(8),), memory=self.SERVED, unwished_since={"fraud": 0.0}, wishes=empty
        )
        found = decide(value, unload=True)
        assert (only(found).state, found.retire) == (KEPT, {})


VERSIONS = st.integers(1, 3)


@settings(max_examples=200, deadline=None)
@given(
    wished=VERSIONS,
    there=st.none() | VERSIONS,
    is_proven=st.booleans(),
    taken_back=st.sets(VERSIONS),
    failed=st.none() | st.sampled_from([None, NOW - 1, NOW + 1]),
    has_failure=st.booleans(),
    running=st.none() | VERSIONS,
)
def test_one_thing_at_a_time_and_never_both_rest_and_work(
    wished: int,
    there: int | None,
    is_proven: bool,
    taken_back: set[int],
    failed: float | None,
    has_failure: bool,
    running: int | None,
) -> None:
    value = seen(
        wish(wished),
        there=()
        if there is None
        else (published(there, is_proven=is_proven, taken_back=dict.fromkeys(taken_back, "eve")),),
        memory=Memory(failures={"fraud": failure(failed)} if has_failure else {}),
        fingerprints={"fraud": "f"},
        running={} if running is None else {"fraud": wish(running)},
    )
    found = decide(value)
    state = only(found).state
    assert bool(found.promote) == (state == PENDING)
    assert bool(found.cancel) == (running not in {None, wished})
    assert not (found.promote and value.running)
    is_there = there == wished and is_proven
    if running is None:
        assert (state == SERVING) == is_there
