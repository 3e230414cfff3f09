"""What of a process at work wakes the watcher."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.settings import Settings
from pipeline.watch.jobs import Job, Task, await_news

FORKS = multiprocessing.get_context("fork")
A_WHILE = 0.3


@pytest.fixture
def wake() -> Iterator[Any]:
    reader, writer = FORKS.Pipe(duplex=False)
    with reader, writer:
        yield reader


@pytest.fixture
def started() -> Iterator[Callable[[bool], tuple[Job, Any, Any]]]:
    """A process that does nothing, and the end at which it would tell its stages."""
    processes = []

    def start(needs_export: bool) -> tuple[Job, Any, Any]:
        receiver, sender = FORKS.Pipe(duplex=False)
        listened, lifeline = FORKS.Pipe(duplex=False)
        process = FORKS.Process(target=signal.pause)
        process.start()
        processes.append((process, sender, listened))
        task = Task(
            model="m", wish=None, settings=Settings(), number="1", needs_export=needs_export
        )
        return Job(task, process, receiver, lifeline), sender, process

    yield start
    for process, *ends in processes:
        process.kill()
        process.join()
        for end in ends:
            end.close()


def waited(job: Job, wake: Any) -> bool:
    """Whether nothing woke it."""
    begun = time.monotonic()
    await_news([job], wake, A_WHILE)
    return time.monotonic() - begun >= A_WHILE


def test_a_stage_alone_wakes_nobody(started: Callable[..., Any], wake: Any) -> None:
    job, sender, _process = started(needs_export=False)
    sender.send(("stage", "export"))
    sender.send(("stage", "load"))
    assert waited(job, wake)
    assert job.stage == "load"


def test_the_end_of_an_export_does(started: Callable[..., Any], wake: Any) -> None:
    job, sender, _process = started(needs_export=True)
    sender.send(("stage", "check"))
    assert waited(job, wake)
    sender.send(("stage", "lock"))
    assert not waited(job, wake)


def test_and_so_does_the_end_of_the_process_even_if_it_was_silent_before(
    started: Callable[..., Any], wake: Any
) -> None:
    job, sender, process = started(needs_export=True)
    sender.close()
    assert job.poll() is None
    process.kill()
    assert not waited(job, wake)
    outcome = job.poll()
    assert outcome is not None
    assert "SIGKILL" in outcome.message or "Killed" in outcome.message
