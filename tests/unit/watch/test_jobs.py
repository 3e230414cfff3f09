"""What a watcher keeps ready for its jobs, and that it hears them out."""

from __future__ import annotations

import multiprocessing
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any

import psutil
import pytest

from pipeline.settings import Settings
from pipeline.watch import jobs
from pipeline.watch.jobs import Job, Workshop
from pipeline.watch.outcomes import Outcome
from pipeline.watch.tasks import Task, Unanswered

FORKS = multiprocessing.get_context("fork")


def zygotes() -> list[int]:
    return [
        child.pid
        for child in psutil.Process().children()
        if "pipeline.flows.zygote_main" in child.cmdline()
    ]


def test_one_zygote_is_kept_ready_and_another_one_when_it_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "ensure_running", lambda: None)  # it would outlive the test
    with closing(Workshop()) as workshop:
        assert not zygotes()
        workshop.warm_up()
        workshop.warm_up()
        (first,) = zygotes()
        psutil.Process(first).kill()
        psutil.wait_procs([psutil.Process(first)], timeout=10)
        workshop.warm_up()
        (second,) = zygotes()
        assert second != first
    assert not zygotes()


class EndsWhenAskedFor:
    """A process that says its last word, and ends, just before somebody asks whether it lives."""

    def __init__(self, sender: Connection) -> None:
        self._released = FORKS.Event()
        self._process = FORKS.Process(target=self._work, args=(sender,))
        self._process.start()
        sender.close()

    def _work(self, sender: Connection) -> None:
        self._released.wait()
        sender.send(Unanswered())
        sender.send(Outcome(kind="promoted"))

    def is_alive(self) -> bool:
        self._released.set()
        self._process.join()
        return self._process.is_alive()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._process, name)


def test_the_last_word_of_a_job_is_heard_whenever_it_comes() -> None:
    receiver, sender = FORKS.Pipe(duplex=False)
    listened, lifeline = FORKS.Pipe(duplex=False)
    task = Task(model="m", wish=None, settings=Settings(), number="1")
    told: list[str] = []
    process = EndsWhenAskedFor(sender)
    job = Job(task, process, receiver, lifeline, lambda: told.append("the zygote hangs"))
    with listened:
        assert job.poll() == Outcome(kind="promoted")
    assert told == ["the zygote hangs"]
