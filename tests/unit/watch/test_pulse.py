"""What is known of a loop from outside."""

from __future__ import annotations

import time

from pipeline.watch.difference import PENDING, REFUSED, SERVING, Difference, Standing
from pipeline.watch.events import ENDED, STARTED, Event
from pipeline.watch.metrics import rendered
from pipeline.watch.pulse import Pulse
from pipeline.watch.wishes import Wish


def found(**states: str) -> Difference:
    standings = tuple(
        Standing(
            model=model,
            wish=Wish(model=model, registered_model=model, alias="champion", version=1),
            published=None,
            state=state,
        )
        for model, state in states.items()
    )
    return Difference(promote=(), retire={}, cancel={}, standings=standings)


def values(pulse: Pulse) -> dict[str, float]:
    lines = rendered(pulse).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name.removeprefix("tritonpipe_watch_"): float(value) for name, value in pairs}


def test_a_watcher_that_waits_to_lead_is_well_and_ready() -> None:
    pulse = Pulse(interval=1.0)
    assert (pulse.is_alive, pulse.is_ready) == (True, True)


def test_a_leader_is_ready_after_its_first_round_and_not_while_a_source_is_down() -> None:
    pulse = Pulse(interval=1.0, is_leading=True)
    ready = [pulse.is_ready]
    pulse.went_well(found())
    ready.append(pulse.is_ready)
    pulse.failed("MLflow does not answer")
    ready.append(pulse.is_ready)
    assert ready == [False, True, False]
    assert pulse.is_alive


def test_a_loop_that_stands_still_is_not_alive() -> None:
    pulse = Pulse(interval=1.0, is_leading=True)
    pulse.went_well(found())
    pulse.last_try = time.time() - 100.0
    assert not pulse.is_alive


def test_the_lag_counts_from_when_a_wish_was_first_seen_unfulfilled() -> None:
    pulse = Pulse(interval=1.0)
    pulse.went_well(found(a=PENDING, b=SERVING))
    since = pulse.unfulfilled_since["a"]
    pulse.went_well(found(a=REFUSED, b=SERVING))
    assert pulse.unfulfilled_since == {"a": since}
    pulse.went_well(found(a=SERVING, b=SERVING))
    assert pulse.unfulfilled_since == {}


def test_metrics_tell_all_of_it() -> None:
    pulse = Pulse(interval=1.0, is_leading=True)
    pulse.take(Event(kind=STARTED, at=1.0, model="a"))
    for seconds in (1.0, 2.0):
        pulse.take(
            Event(kind=ENDED, at=1.0, model="a", outcome="promoted", stages={"export": seconds})
        )
    pulse.went_well(found(a=PENDING, b=SERVING, c=SERVING))
    told = values(pulse)
    assert told["leading"] == 1
    assert told["rounds_total"] == 1
    assert (told['models{state="serving"}'], told['models{state="refused"}']) == (2, 0)
    assert told['promotions_total{outcome="promoted"}'] == 2
    assert told['stage_seconds_sum{stage="export"}'] == 3.0
    assert told['stage_seconds_count{stage="export"}'] == 2
    assert 0 <= told['lag_seconds{model="a"}'] < 60
