"""The embedded stack with its real servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import psutil
import pytest
from obstore.exceptions import BaseError, PermissionDeniedError
from obstore.store import S3Store

from pipeline.errors import StackError
from pipeline.stack import Stack
from pipeline.stack.part import http_status
from pipeline.stack.ports import Ports, free_ports
from pipeline.stack.state import StackOptions, StateDirectory

TRITONPIPE = Path(sys.executable).with_name("tritonpipe")


def pids(stack: Stack) -> dict[str, int | None]:
    return {part.name: part.pid for part in stack.status().parts}


def kill(stack: Stack, part: str) -> None:
    pid = pids(stack)[part]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pids(stack)[part] is None)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def processes_mentioning(text: str) -> list[str]:
    """Command lines of all processes of this machine that contain a text."""
    found = []
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if text in line and process.pid != os.getpid():
            found.append(line)
    return found


def bucket(stack: Stack, **changed: str) -> S3Store:
    variables = stack.environment_variables()
    settings = {
        "access_key_id": variables["AWS_ACCESS_KEY_ID"],
        "secret_access_key": variables["AWS_SECRET_ACCESS_KEY"],
        "endpoint": variables["AWS_ENDPOINT_URL"],
        **changed,
    }
    return S3Store("models", region="us-east-1", client_options={"allow_http": True}, **settings)  # type: ignore[arg-type]


@pytest.fixture
def other_stack(tmp_path: Path) -> Iterator[Stack]:
    """A second stack, not started; ended and deleted after the test."""
    stack = Stack(tmp_path / "other")
    yield stack
    stack.down(delete=True)
    assert not stack.state_directory.exists()
    assert processes_mentioning(str(stack.state_directory)) == []


def test_everything_runs_and_up_again_starts_nothing(stack: Stack) -> None:
    before = pids(stack)
    told: list[str] = []
    status = stack.up(tell=told.append)
    assert status.is_up
    assert pids(stack) == before
    assert told == []


def test_every_server_answers_at_its_address(stack: Stack) -> None:
    where = stack.addresses()
    port = {name: int(getattr(where, name).split(":")[2].split("/")[0]) for name in
            ("mlflow", "s3", "triton_http", "triton_metrics")}  # fmt: skip
    assert http_status(port["mlflow"], "/health")[0] == 200
    assert http_status(port["triton_http"], "/v2/health/live")[0] == 200
    assert http_status(port["triton_metrics"], "/metrics")[0] == 200
    assert http_status(port["s3"], "/models")[0] in {400, 403}


def test_a_shell_can_evaluate_the_environment(stack: Stack) -> None:
    done = subprocess.run(
        ["sh", "-c", f'eval "$({TRITONPIPE} stack env)" && env'],
        env={"PATH": os.environ["PATH"], "TRITONPIPE_STATE_DIR": str(stack.state_directory)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.splitlines()) >= {
        f"{name}={value}" for name, value in stack.environment_variables().items()
    }
    assert done.stderr == ""


def test_the_command_line_shows_what_runs(stack: Stack) -> None:
    done = subprocess.run(
        [TRITONPIPE, "stack", "status", "--json", "--state-dir", stack.state_directory],
        capture_output=True,
        text=True,
        check=True,
    )
    status = json.loads(done.stdout)
    assert status["is_up"]
    assert {part["name"]: part["pid"] for part in status["parts"]} == pids(stack)


def test_objects_are_behind_the_key(stack: Stack) -> None:
    obstore.put(bucket(stack), "elsewhere/x", b"1")
    obstore.delete(bucket(stack), "elsewhere/x")
    with pytest.raises(PermissionDeniedError, match="403"):
        obstore.put(bucket(stack, secret_access_key="0" * 40), "elsewhere/x", b"1")
    with pytest.raises(BaseError, match="403"):
        obstore.put(bucket(stack, access_key_id="TPOTHER0000000000000"), "elsewhere/x", b"1")


def test_no_secret_is_on_a_command_line_or_in_a_readable_file(stack: Stack) -> None:
    variables = stack.environment_variables()
    assert processes_mentioning(variables["AWS_SECRET_ACCESS_KEY"]) == []
    assert processes_mentioning(variables["AWS_ACCESS_KEY_ID"]) == []
    assert stack.state_directory.stat().st_mode & 0o777 == 0o700
    for path in (stack.state_directory / "secrets").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600, path


@pytest.mark.parametrize(
    ("part", "title"),
    [("triton", "Triton"), ("mlflow", "MLflow")],
)
def test_a_killed_server_is_reported_and_comes_back_on_its_address(
    stack: Stack, part: str, title: str
) -> None:
    before, where = pids(stack), stack.addresses()
    kill(stack, part)
    status = {each.name: each for each in stack.status().parts}[part]
    assert status.state == "died"
    assert "killed by SIGKILL" in status.problem
    assert status.problem.count("\n  | ") > 1, "the end of its log"
    told: list[str] = []
    assert stack.up(tell=told.append).is_up
    assert [line.splitlines()[0] for line in told] == [
        f"starting again: {title} was killed by SIGKILL; the end of its log:"
    ]
    assert stack.addresses() == where
    assert {name for name, pid in pids(stack).items() if pid != before[name]} == {part}
    assert stack.logs(part)[part].with_name(f"{part}.log.previous").is_file()


def test_triton_survives_a_restart_of_s3(stack: Stack) -> None:
    before = pids(stack)
    kill(stack, "s3")
    assert stack.up().is_up
    assert pids(stack)["triton"] == before["triton"]


def test_restart_names_the_entries_that_triton_does_not_serve(stack: Stack) -> None:
    before, where = pids(stack), stack.addresses()
    obstore.put(bucket(stack), "repository/broken/config.pbtxt", b"no such field: 1")
    told: list[str] = []
    try:
        assert stack.restart("triton", tell=told.append).is_up
    finally:
        obstore.delete(bucket(stack), "repository/broken/config.pbtxt")
    assert len(told) == 1
    assert "does not serve broken" in told[0]
    assert stack.addresses() == where
    assert {name for name, pid in pids(stack).items() if pid != before[name]} == {"triton"}


def test_a_second_stack_beside_the_first(
    stack: Stack,
    other_stack: Stack,
    take_down: Callable[[Stack], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "somebody-else")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    before = pids(stack)
    state = StateDirectory(other_stack.state_directory)
    state.create()
    free = free_ports()
    usual = Ports(
        mlflow=next(free), s3=next(free), triton_http=next(free), triton_grpc=next(free),
        triton_metrics=next(free),
    )  # fmt: skip
    state.remember(StackOptions(ports=usual))
    told: list[str] = []
    with socket.create_server(("127.0.0.1", usual.s3)):
        assert other_stack.up(tell=told.append).is_up
    assert len(told) == 1
    assert f"port {usual.s3} is taken by another program: S3 gets" in told[0]
    assert pids(stack) == before

    key = other_stack.environment_variables()["AWS_SECRET_ACCESS_KEY"]
    assert key != stack.environment_variables()["AWS_SECRET_ACCESS_KEY"]
    for pid in pids(other_stack).values():
        environment = psutil.Process(pid).environ()
        assert "AWS_PROFILE" not in environment
        assert "PYTHONPATH" not in environment

    obstore.put(bucket(other_stack), "elsewhere/kept", b"1")
    where = other_stack.addresses()
    take_down(other_stack)
    assert other_stack.addresses() == where
    assert (other_stack.state_directory / "s3/models/elsewhere/kept").read_bytes() == b"1"


def test_ctrl_c_while_starting_leaves_nothing(other_stack: Stack) -> None:
    ports = [f"--{name}-port=0" for name in ("mlflow", "s3", "triton-http", "triton-grpc",
                                             "triton-metrics")]  # fmt: skip
    folder = other_stack.state_directory
    command = subprocess.Popen(
        [TRITONPIPE, "stack", "up", "--state-dir", folder, *ports],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: (folder / "run" / "triton.json").is_file())
    started = pids(other_stack)
    command.send_signal(signal.SIGINT)
    out, _ = command.communicate(timeout=30)
    assert command.returncode == 130
    assert out == b""
    assert any(started.values())
    assert not any(psutil.pid_exists(pid) for pid in started.values() if pid)
    assert [part.state for part in other_stack.status().parts] == ["stopped"] * 3


def test_a_server_that_dies_at_start_is_an_error_with_its_last_words(
    stack: Stack, other_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = environment_with_broken_s3(stack.install().root, tmp_path / "servers")
    monkeypatch.setenv("TRITONPIPE_SERVERS", str(broken))
    with pytest.raises(StackError, match="S3 ended with exit code 3") as caught:
        other_stack.up(ports={"s3": 0, "mlflow": 0})
    assert "the disk is on fire" in caught.value.message
    assert "logs s3" in caught.value.hint
    assert [part.state for part in other_stack.status().parts] == ["died", "stopped", "stopped"]


def environment_with_broken_s3(real: Path, root: Path) -> Path:
    shutil.copytree(real / "bin", root / "bin", symlinks=True)
    (root / "lib").symlink_to(real / "lib")
    shutil.copy(real / "pyvenv.cfg", root)
    (root / "bin" / "rclone").write_text("#!/bin/sh\necho the disk is on fire\nexit 3\n")
    return root
