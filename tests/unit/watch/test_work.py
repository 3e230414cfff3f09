"""What work at hand tells the watcher, and what of it wakes the watcher."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from pipeline.settings import Settings
from pipeline.watch.events import Event
from pipeline.watch.jobs import Job
from pipeline.watch.outcomes import DIED, Outcome
from pipeline.watch.tasks import Begun, Passed, Task, Warned
from pipeline.watch.work import Work

FORKS = multiprocessing.get_context("fork")
A_WHILE = 0.3


class Hands:
    """Starts processes that do nothing, and speaks for them."""

    def __init__(self) -> None:
        self.processes: list[Any] = []
        self.voices: list[Any] = []
        self.listened: list[Any] = []

    def start(self, task: Task) -> Job:
        receiver, sender = FORKS.Pipe(duplex=False)
        listened, lifeline = FORKS.Pipe(duplex=False)
        process = FORKS.Process(target=signal.pause)
        process.start()
        self.processes.append(process)
        self.voices.append(sender)
        self.listened.append(listened)
        return Job(task, process, receiver, lifeline)


@pytest.fixture
def hands() -> Iterator[Hands]:
    hands = Hands()
    yield hands
    for process in hands.processes:
        process.kill()
        process.join()
    for end in (*hands.voices, *hands.listened):
        end.close()


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def work(hands: Hands, told: list[Event]) -> Work:
    return Work(cast("Any", hands), told.append)


@pytest.fixture
def is_left_alone(work: Work) -> Iterator[Callable[[], bool]]:
    """Whether nothing wakes the watcher for a while."""
    reader, writer = FORKS.Pipe(duplex=False)

    def wait() -> bool:
        begun = time.monotonic()
        work.await_news(reader, A_WHILE)
        return time.monotonic() - begun >= A_WHILE

    with reader, writer:
        yield wait


def task(*, needs_export: bool) -> Task:
    return Task(model="m", wish=None, settings=Settings(), number="1", needs_export=needs_export)


def test_stages_and_warnings_are_told_at_once_and_wake_nobody(
    work: Work, hands: Hands, told: list[Event], is_left_alone: Callable[[], bool]
) -> None:
    work.begin(task(needs_export=False), "")
    for news in (Begun("export"), Warned("it is slow"), Passed("export", 2.5, "opset 16")):
        hands.voices[0].send(news)
    assert is_left_alone()
    assert [(e.kind, e.stage, e.message) for e in told] == [
        ("started", "", ""),
        ("warning", "", "it is slow"),
        ("stage", "export", "opset 16"),
    ]
    assert {e.promotion for e in told} == {"1"}
    assert told[-1].seconds == 2.5


def test_the_end_of_an_export_makes_room_for_another(
    work: Work, hands: Hands, is_left_alone: Callable[[], bool]
) -> None:
    work.begin(task(needs_export=True), "")
    hands.voices[0].send(Begun("check"))
    assert is_left_alone()
    hands.voices[0].send(Begun("lock"))
    assert not is_left_alone()
    assert is_left_alone()


def test_the_end_of_work_tells_what_it_did_even_if_it_failed(
    work: Work, hands: Hands, told: list[Event], is_left_alone: Callable[[], bool]
) -> None:
    work.begin(task(needs_export=True), "")
    hands.voices[0].send(Passed("fetch", 1.0, ""))
    hands.voices[0].send(Outcome(kind="ModelError", message="it has no signature"))
    hands.processes[0].kill()
    assert not is_left_alone()
    (ended,) = work.ended()
    assert ended.outcome.kind == "ModelError"
    assert [e.kind for e in told] == ["started", "stage", "ended"]
    assert told[-1].stages == {"fetch": 1.0}


def test_work_that_fell_silent_is_waited_for_until_it_has_died(
    work: Work, hands: Hands, is_left_alone: Callable[[], bool]
) -> None:
    work.begin(task(needs_export=True), "")
    hands.voices[0].send(Begun("export"))
    hands.voices[0].close()
    assert is_left_alone()
    hands.processes[0].kill()
    assert not is_left_alone()
    (ended,) = work.ended()
    assert ended.outcome.kind == DIED
    assert "in stage export" in ended.outcome.message
