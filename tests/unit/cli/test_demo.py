"""``tritonpipe demo`` without servers: what is printed where, and what comes next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline import stack
from pipeline.cli.demo import demo
from pipeline.demo import run as demo_run
from pipeline.demo.run import DemoResult, Requests
from pipeline.errors import ConfirmationError
from pipeline.stack.addresses import addresses_from_ports, client_variables
from pipeline.stack.credentials import S3Key
from pipeline.stack.ports import Ports


class FakeStack:
    is_running = False

    def __init__(self, _state_dir: Path | None) -> None:
        pass

    def up(self, _progress: object) -> None:
        pass

    def down(self, _progress: object) -> None:
        pass

    def environment_variables(self) -> dict[str, str]:
        key = S3Key(access_key="A", secret_key="S")
        return client_variables(addresses_from_ports(Ports()), key, Path("/state/locks"))


@pytest.fixture
def failed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many requests fail; one number that a test may change."""
    failed = [0]

    def result(*_: object) -> DemoResult:
        requests = Requests(
            sent=9, failed=failed[0], wrong=0, versions={1: 9}, longest_gap_seconds=0, errors=()
        )
        rollback: Any = None
        return DemoResult(
            trained=(), promotions=(), rollback=rollback, requests=requests, seconds=1
        )

    monkeypatch.setattr(stack, "Stack", FakeStack)
    monkeypatch.setattr(demo_run, "require_packages", lambda: None)
    monkeypatch.setattr(demo_run, "run_demo", result)
    return failed


def run(*arguments: str) -> Result:
    return CliRunner().invoke(demo, arguments)


def test_failed_requests_are_one_document_as_json_and_a_table_otherwise(failed: list[int]) -> None:
    assert '"sent": 9' in run("--json").stdout
    failed[0] = 2
    result = run("--json")
    assert isinstance(result.exception, ConfirmationError)
    assert result.stdout == ""  # what prints the error prints the document
    assert "version 1: 9" in run().stdout


@pytest.mark.parametrize("options", [[], ["--keep"]])
def test_what_comes_next_is_about_this_stack(failed: list[int], options: list[str]) -> None:
    assert "--state-dir" not in run(*options).stderr
    told = run(*options, "--state-dir", "/tmp/my state").stderr
    commands = [line for line in told.splitlines() if "tritonpipe demo" in line or "stack" in line]
    assert commands
    assert all("--state-dir '/tmp/my state'" in line for line in commands)
