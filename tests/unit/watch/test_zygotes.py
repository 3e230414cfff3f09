"""When another zygote is started, and what is told of one that does not work."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from pipeline.flows.zygote import Zygote
from pipeline.watch import zygotes
from pipeline.watch.zygotes import Zygotes


@pytest.fixture
def kept() -> Iterator[Zygotes]:
    with closing(Zygotes()) as kept:
        yield kept


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have a shell script in place of Python."""

    def interpreter(script: str) -> None:
        program = tmp_path / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return interpreter


def ended(zygote: Zygote | None) -> Zygote:
    assert zygote is not None
    deadline = time.monotonic() + 20
    while zygote.is_alive:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return zygote


def test_one_that_dies_at_start_is_tried_three_times_and_told_of_twice(
    kept: Zygotes, interpreter: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    interpreter("echo no space left >&2; exit 3")
    for _ in range(3):
        ended(kept.ready())
    for _ in range(3):
        assert kept.ready() is None
    first, last = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert "ended with exit code 3: no space left; another one is tried" in first
    assert "every child is a fresh interpreter for ten minutes" in last


def test_after_a_while_it_is_tried_again(
    kept: Zygotes, interpreter: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter("exit 3")
    for _ in range(3):
        ended(kept.ready())
    assert kept.ready() is None
    monkeypatch.setattr(zygotes, "_WHILE_SECONDS", 0.0)
    assert kept.ready() is not None


def test_one_that_ends_in_good_order_is_replaced_as_often_as_it_does(
    kept: Zygotes, interpreter: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    """It does when other packages are installed."""
    interpreter("exit 0")
    for _ in range(5):
        ended(kept.ready())
    assert not caplog.records


def test_one_that_hangs_is_replaced_unless_it_may_still_import(
    kept: Zygotes, interpreter: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter("exec sleep 300")
    first = kept.ready()
    assert first is not None
    kept.unanswered(first)
    assert kept.ready() is first
    monkeypatch.setattr(zygotes, "_IMPORT_SECONDS", 0.0)
    kept.unanswered(first)
    assert not psutil.pid_exists(first.pid)
    second = kept.ready()
    assert second is not None
    kept.unanswered(first)  # another job that had asked it, too
    assert kept.ready() is second


def test_a_watcher_without_a_zygote_works(
    kept: Zygotes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    for _ in range(9):
        assert kept.ready() is None
    first, _ = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert "cannot be started: [Errno 2] No such file or directory: '/nowhere/python'" in first
