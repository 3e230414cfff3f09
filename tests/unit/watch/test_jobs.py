"""What a watcher keeps ready for its jobs."""

from __future__ import annotations

from contextlib import closing

import psutil
import pytest

from pipeline.watch import jobs
from pipeline.watch.jobs import Workshop


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


def test_a_watcher_without_a_zygote_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("no memory for another process")

    monkeypatch.setattr(jobs, "ensure_running", lambda: None)
    monkeypatch.setattr(jobs, "Zygote", fail)
    with closing(Workshop()) as workshop:
        workshop.warm_up()
