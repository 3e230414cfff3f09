"""``tritonpipe stack`` without servers: what is passed on and what is printed where."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.stack import stack
from pipeline.errors import StackError
from pipeline.stack import Mirroring
from pipeline.stack.addresses import Addresses, addresses_from_ports, client_variables
from pipeline.stack.credentials import S3Key
from pipeline.stack.ports import Ports
from pipeline.stack.status import PartStatus, StackStatus


class FakeStack:
    """Remembers calls; its servers run as long as ``is_running`` says so."""

    state_directory = Path("/state")

    def __init__(self) -> None:
        self.is_running = True
        self.calls: list[tuple[Any, ...]] = []
        self.log = Path("/nowhere")

    def up(self, progress: Any, *, tell: Any, **options: Any) -> None:
        tell("port 9000 is taken")
        with progress("S3") as describe:
            describe("http://[bold]")
        self.calls.append(("up", options))

    def down(self, _progress: Any, *, delete: bool) -> None:
        self.calls.append(("down", delete))

    def restart(self, part: str | None, _progress: Any, *, tell: Any) -> None:
        self.calls.append(("restart", part))

    def addresses(self) -> Addresses:
        return addresses_from_ports(Ports())

    def environment_variables(self) -> dict[str, str]:
        return client_variables(
            self.addresses(), S3Key(access_key="A", secret_key="S"), Path("/state/locks")
        )

    def logs(self, part: str | None) -> dict[str, Path]:
        return dict.fromkeys([part] if part else ["s3", "triton"], self.log)

    def status(self) -> StackStatus:
        triton = PartStatus(
            name="triton", title="Triton", state="died", address="http://127.0.0.1:8000",
            log=self.log, problem="Triton was killed by SIGKILL",
        )  # fmt: skip
        s3 = PartStatus(
            name="s3", title="S3", state="running", address="http://127.0.0.1:9000", pid=77,
            seconds=3725.5, memory_bytes=72_000_000, log=self.log,
        )  # fmt: skip
        return StackStatus(
            state_directory=self.state_directory, parts=(s3,) if self.is_running else (s3, triton)
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeStack:
    fake = FakeStack()
    # The package has the command group under the name of this module.
    module = importlib.import_module("pipeline.cli.stack")
    monkeypatch.setattr(module, "_open", lambda _state_dir: fake)
    return fake


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(stack, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("name", [None, *stack.commands])
def test_help_has_examples(name: str | None) -> None:
    assert "Examples:\n" in run(*filter(None, [name]), "--help").output


def test_up_passes_on_only_what_was_asked_for(fake: FakeStack) -> None:
    run("up")
    run("up", "--s3-port", "0", "--triton-http-port", "8010", "--poll-seconds", "5")
    for option in ("--mirror", "--mirror=explicit", "--mirror=off"):
        run("up", option)
    nothing: dict[str, object] = {"ports": {}, "poll_seconds": None, "mirroring": None}
    assert fake.calls == [
        ("up", nothing),
        ("up", {"ports": {"s3": 0, "triton_http": 8010}, "poll_seconds": 5, "mirroring": None}),
        ("up", nothing | {"mirroring": Mirroring.POLL}),
        ("up", nothing | {"mirroring": Mirroring.EXPLICIT}),
        ("up", nothing | {"mirroring": Mirroring.OFF}),
    ]


def test_what_up_prints_can_be_evaluated(fake: FakeStack) -> None:
    result = run("up")
    script = result.stdout + "\necho $MLFLOW_TRACKING_URI $TRITONPIPE_TRITON_GRPC"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "http://127.0.0.1:5000 127.0.0.1:8001\n"
    assert "# Triton  http://127.0.0.1:8000   gRPC 127.0.0.1:8001" in result.stdout
    assert "port 9000 is taken" in result.stderr
    assert "✓ S3" in result.stderr
    assert "http://[bold]" in result.stderr


@pytest.mark.parametrize("command", ["up", "env"])
def test_a_proxy_is_not_asked_for_the_stack(
    fake: FakeStack, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("NO_PROXY", "internal.example")
    monkeypatch.delenv("no_proxy", raising=False)
    script = run(command).stdout + "\necho $NO_PROXY $no_proxy"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["internal.example,127.0.0.1,localhost"] * 2


def test_up_as_json(fake: FakeStack) -> None:
    document = json.loads(run("up", "--json").stdout)
    assert document["addresses"]["triton_metrics"] == "http://127.0.0.1:8002/metrics"
    assert document["environment"]["AWS_SECRET_ACCESS_KEY"] == "S"


def test_env_warns_when_not_everything_runs(
    fake: FakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert run("env").stderr == ""
    fake.is_running = False
    result = run("env", "--json")
    assert "tritonpipe stack up" in result.stderr
    assert json.loads(result.stdout) == fake.environment_variables() | {
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def test_status_shows_why_a_server_died(fake: FakeStack) -> None:
    fake.is_running = False
    result = run("status")
    assert "1 h 02 min" in result.stdout
    assert "72 MB" in result.stdout
    assert "Triton was killed by SIGKILL" in result.stderr
    document = json.loads(run("status", "--json").stdout)
    assert document["is_up"] is False
    assert [part["state"] for part in document["parts"]] == ["running", "died"]


def test_logs_of_all_servers_name_the_server(fake: FakeStack, tmp_path: Path) -> None:
    fake.log = tmp_path / "log"
    fake.log.write_text("one\ntwo\n")
    assert run("logs", "-n", "1").stdout == "s3     | two\ntriton | two\n"
    assert run("logs", "triton").stdout == "one\ntwo\n"


def test_a_part_that_does_not_exist_is_refused(fake: FakeStack) -> None:
    result = CliRunner().invoke(stack, ["restart", "kafka"])
    assert result.exit_code == 2
    assert "s3" in result.output
    assert fake.calls == []


def test_down_and_restart(fake: FakeStack) -> None:
    run("restart", "triton")
    run("restart")
    run("down")
    assert "deleted /state" in run("down", "--delete").stderr
    fake.is_running = False
    assert "nothing is running" in run("down").stderr
    assert fake.calls == [
        ("restart", "triton"), ("restart", None), ("down", False), ("down", True), ("down", False)
    ]  # fmt: skip


def test_without_a_stack_the_hint_says_how_to_start_one(tmp_path: Path) -> None:
    arguments = ["env", "--state-dir", str(tmp_path / "none")]
    with pytest.raises(StackError, match="no stack was started in") as caught:
        CliRunner().invoke(stack, arguments, catch_exceptions=False)
    assert caught.value.hint == "tritonpipe stack up"
    assert not (tmp_path / "none").exists()
