from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.cache import cache
from pipeline.errors import SettingsError


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TRITONPIPE_CACHE", str(tmp_path))
    for number, model in enumerate(["fraud/1", "fraud/2"]):
        entry = tmp_path / (f"{number}" * 64)
        entry.mkdir()
        document = {"model": model, "flavor": "onnx", "size": 100}
        (entry / "entry.json").write_text(json.dumps(document))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cache, arguments, catch_exceptions=False)


def test_what_is_kept_is_listed() -> None:
    assert {entry["model"] for entry in json.loads(run("ls", "--json").stdout)} == {
        "fraud/1",
        "fraud/2",
    }
    assert "fraud/2" in run("ls").stdout


def test_a_plan_names_what_would_go_and_removes_nothing() -> None:
    plan = json.loads(run("prune", "--all", "--dry-run", "--json").stdout)
    assert len(plan) == 2
    assert len(json.loads(run("ls", "--json").stdout)) == 2
    assert json.loads(run("prune", "--all", "--json").stdout) == plan
    assert "no export is kept" in run("ls").output


def test_only_what_does_not_fit_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert json.loads(run("prune", "--json").stdout) == []
    monkeypatch.setenv("TRITONPIPE_CACHE_BYTES", "150")
    assert len(json.loads(run("prune", "--json").stdout)) == 1


def test_without_a_cache_there_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONPIPE_CACHE", "off")
    with pytest.raises(SettingsError, match="TRITONPIPE_CACHE is off"):
        run("ls")
