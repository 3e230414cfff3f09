from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import StackError
from pipeline.flows.progress import silent
from pipeline.stack.part import Launch, Part
from pipeline.stack.startup import Startup
from pipeline.stack.state import StateDirectory


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    state = StateDirectory(tmp_path / "state")
    state.create()
    return state


@pytest.fixture
def part(state: StateDirectory) -> Iterator[Part]:
    part = Part(state, "s3", "S3", stop_patience=5)
    yield part
    part.stop()


def launch(script: str, *, answers: bool = True) -> Launch:
    return Launch(
        command=("/bin/sh", "-c", script),
        environment={"PATH": os.environ["PATH"]},
        directory=Path("/"),
        ports=(),
        answers=lambda: answers,
    )


def test_a_part_is_stopped_running_or_dead(part: Part) -> None:
    assert part.state() == "stopped"
    part.start(launch("exec sleep 60"))
    part.wait_until_ready(launch(""))
    assert part.state() == "running"
    identity = part.identity()
    assert identity is not None
    os.kill(identity.pid, 9)
    while part.is_running:
        pass
    assert part.state() == "died"
    part.stop()
    assert part.state() == "stopped"


def test_a_part_that_ends_is_an_error_with_the_end_of_its_log(part: Part) -> None:
    dying = launch("for i in $(seq 100); do echo line $i; done; exit 3", answers=False)
    part.start(dying)
    with pytest.raises(StackError, match="S3 ended with exit code 3") as caught:
        part.wait_until_ready(dying, patience=20)
    assert "line 100" in caught.value.message
    assert "line 80" not in caught.value.message
    assert caught.value.hint == "tritonpipe stack logs s3 -n 200"


def test_a_part_that_does_not_answer_is_an_error(part: Part) -> None:
    silent = launch("exec sleep 60", answers=False)
    part.start(silent)
    with pytest.raises(StackError, match="did not answer within 0 s"):
        part.wait_until_ready(silent, patience=0.2)


def test_a_log_is_about_one_run_and_the_one_before_is_kept(part: Part) -> None:
    for word in ("first", "second"):
        part.start(launch(f"echo {word}; exec sleep 60"))
        while word not in part.last_words():
            pass
    assert part.log.read_text() == "second\n"
    assert part.log.with_name("s3.log.previous").read_text() == "first\n"


def test_a_failed_startup_ends_what_it_started_and_nothing_else(state: StateDirectory) -> None:
    before = Part(state, "mlflow", "MLflow", stop_patience=5)
    mine = Part(state, "s3", "S3", stop_patience=5)
    dying = Part(state, "triton", "Triton", stop_patience=5)
    before.start(launch("exec sleep 60"))

    def start_all() -> None:
        with Startup(state, silent, lambda _text: None) as startup:
            startup.start(before, lambda: pytest.fail("it runs"))
            startup.start(mine, lambda: launch("exec sleep 60"))
            startup.start(dying, lambda: launch("exit 1", answers=False))
            for part in (before, mine, dying):
                startup.wait(part, "")

    with pytest.raises(StackError, match="Triton"):
        start_all()
    assert [p.state() for p in (before, mine, dying)] == ["running", "stopped", "died"]
    before.stop()


def test_an_interrupted_startup_ends_what_it_started(state: StateDirectory) -> None:
    part = Part(state, "s3", "S3", stop_patience=5)

    def start_and_interrupt() -> None:
        with Startup(state, silent, lambda _text: None) as startup:
            startup.start(part, lambda: launch("exec sleep 60"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_and_interrupt()
    assert part.state() == "stopped"
