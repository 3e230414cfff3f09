from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.mirror import mirror
from pipeline.errors import RefusedError, UnavailableError
from pipeline.testing.lying_store import LyingStore, SimulatedPublisher
from pipeline.testing.mirrored import unloadable

URL = "s3://models/repository"
Run = Callable[..., Result]


@pytest.fixture
def run(store: LyingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr("pipeline.stores.open_store", lambda _url: store)

    def invoke(*options: str) -> Result:
        arguments = [URL, str(tmp_path / "mirror"), "--reserve-mib", "0", *options]
        return CliRunner().invoke(mirror, arguments)

    return invoke


def test_once_takes_over_what_is_published_and_says_how_triton_is_started(
    run: Run, publisher: SimulatedPublisher, tmp_path: Path
) -> None:
    publisher.publish("m", 1)
    result = run("--once")
    assert result.exit_code == 0
    assert f"--model-repository={tmp_path / 'mirror' / 'repository'} " in result.stderr
    assert result.stdout.split() == [
        "model", "serving", "in", "place", "state", "m", "1", "1", "current",
    ]  # fmt: skip
    assert unloadable(tmp_path / "mirror") == []
    [status] = json.loads(run("--once", "--json").stdout)["models"]
    assert (status["name"], status["serving"], status["reason"]) == ("m", [1], "")


def test_a_dry_run_tells_and_writes_nothing(
    run: Run, publisher: SimulatedPublisher, store: LyingStore, tmp_path: Path
) -> None:
    publisher.publish("m", 1)
    store.put("foreign/config.pbtxt", b"")
    steps = json.loads(run("--dry-run", "--json").stdout)["steps"]
    assert [(s["model"], s["action"], s["named"], s["size"]) for s in steps] == [
        ("foreign", "refuse", [], 0),
        ("m", "move", [1], 17),
    ]
    assert not (tmp_path / "mirror").exists()
    run("--once")
    publisher.publish("m", 2)
    publisher.publish("n", 1)
    files = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "mirror").rglob("*"))
    steps = json.loads(run("--dry-run", "--json").stdout)["steps"]
    assert {s["model"]: (s["action"], s["serving"], s["named"]) for s in steps} == {
        "foreign": ("refuse", [], []),
        "m": ("move", [1], [2]),
        "n": ("move", [], [1]),
    }
    assert sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "mirror").rglob("*")) == files


def test_once_fails_as_a_script_can_tell(
    run: Run, publisher: SimulatedPublisher, store: LyingStore, tmp_path: Path
) -> None:
    store.delete([".tritonpipe"])
    empty = run("--once")
    assert isinstance(empty.exception, UnavailableError)
    publisher.publish("m", 1)
    store.tell_lie("down", 0)
    assert isinstance(run("--once").exception, UnavailableError)
    store.be_honest()
    store.delete(["m/1/manifest.json"])
    refused = run("--once", "--json")
    assert isinstance(refused.exception, RefusedError)
    assert refused.stdout == "", "the error is the one document"


def test_a_public_key_that_signed_nothing_refuses_everything(
    run: Run, publisher: SimulatedPublisher, tmp_path: Path
) -> None:
    publisher.publish("m", 1)
    key = tmp_path / "key.pub"
    key.write_text("a key")
    result = run("--once", "--public-key", str(key))
    assert isinstance(result.exception, RefusedError)
    assert "not signed" in str(result.exception)


@pytest.mark.parametrize(
    "options",
    [
        ("--control", "explicit"),
        ("--control", "explicit", "--triton", "h:1", "--once"),
        ("--triton", "h:1"),
    ],
)
def test_options_that_do_not_go_together(options: tuple[str, ...], run: Run) -> None:
    assert run(*options).exit_code == 2


def test_help_has_examples() -> None:
    assert "Examples:\n" in CliRunner().invoke(mirror, ["--help"]).output
