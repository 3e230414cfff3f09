"""Identity and end of real processes; none of them listens anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.errors import StackError
from pipeline.stack import processes
from pipeline.stack.processes import ProcessIdentity, ProcessStat, parse_stat

TAIL = " 1 " * 30


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], ProcessIdentity]]:
    """Start a shell script as a server; all of them are ended after the test."""
    started: list[ProcessIdentity] = []

    def start(script: str) -> ProcessIdentity:
        identity = processes.start(
            ["/bin/sh", "-c", script],
            environment={"PATH": os.environ["PATH"]},
            directory=tmp_path,
            log=tmp_path / "log",
        )
        started.append(identity)
        return identity

    yield start
    for identity in started:
        processes.stop(identity, patience=0)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["sleep", "a b", "x) R 1 (", ")", "((("])
def test_stat_is_read_whatever_the_program_is_called(name: str) -> None:
    fields = ["S", "1", "77", "78", *["0"] * 15, "4711", "0"]
    assert parse_stat(f"99 ({name}) {' '.join(fields)}\n") == ProcessStat(
        state="S", session=78, started=4711
    )


def test_the_kernel_and_psutil_agree_on_this_process() -> None:
    identity = processes.identify(os.getpid())
    assert identity is not None
    assert processes.is_running(identity)
    assert processes.age_seconds(identity) == pytest.approx(
        time.time() - psutil.Process().create_time(), abs=1.5
    )


def test_another_process_with_the_same_number_is_not_mistaken() -> None:
    identity = processes.identify(os.getpid())
    assert identity is not None
    for other in (replace(identity, started=identity.started - 1), replace(identity, boot="")):
        assert not processes.is_running(other)
        assert processes.family(other) == ()
        processes.stop(other, patience=0)  # must not end this very process


def test_a_number_without_process_has_no_identity() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert processes.identify(child.pid) is None


def test_a_server_ends_when_asked(start: Callable[[str], ProcessIdentity]) -> None:
    server = start("exec sleep 60")
    assert processes.is_running(server)
    processes.stop(server, patience=10)
    assert not processes.is_running(server)
    assert processes.ending(server.pid) == "was killed by SIGTERM"


def test_children_are_ended_also_when_the_server_has_died(
    start: Callable[[str], ProcessIdentity],
) -> None:
    server = start("sleep 60 & sleep 60 & wait")
    wait_until(lambda: len(processes.family(server)) == 3)
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not processes.is_running(server))
    assert len(processes.family(server)) == 2
    processes.stop(server, patience=10)
    assert processes.family(server) == ()


def test_who_does_not_listen_is_killed(
    start: Callable[[str], ProcessIdentity], tmp_path: Path
) -> None:
    server = start("trap '' TERM; echo armed; while true; do sleep 0.05; done")
    wait_until(lambda: (tmp_path / "log").read_text() == "armed\n")
    began = time.monotonic()
    processes.stop(server, patience=0.3)
    assert 0.25 < time.monotonic() - began < 5
    assert processes.family(server) == ()


def test_the_server_is_asked_before_its_children(
    start: Callable[[str], ProcessIdentity], tmp_path: Path
) -> None:
    server = start(
        "sh -c 'trap \"echo child; exit\" TERM; echo armed; while true; do sleep 0.02; done' &"
        "trap 'echo server; sleep 0.3; exit' TERM; echo armed; while true; do sleep 0.02; done"
    )
    log = tmp_path / "log"
    wait_until(lambda: log.read_text().count("armed") == 2)
    processes.stop(server, patience=10)
    said = [word for word in log.read_text().split() if word in {"server", "child"}]
    assert said == ["server", "child"]


def test_the_exit_code_is_told(start: Callable[[str], ProcessIdentity]) -> None:
    server = start("exit 7")
    wait_until(lambda: not processes.is_running(server))
    assert processes.ending(server.pid) == "ended with exit code 7"


def test_a_server_is_out_of_reach_of_the_terminal(
    start: Callable[[str], ProcessIdentity],
) -> None:
    assert os.getsid(start("exec sleep 60").pid) != os.getsid(0)


def test_a_program_that_is_missing_is_an_error_of_the_stack(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="cannot run /nowhere/server: No such file"):
        processes.start(
            ["/nowhere/server"], environment={}, directory=tmp_path, log=tmp_path / "log"
        )
