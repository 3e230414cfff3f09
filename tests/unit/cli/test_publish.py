"""``tritonpipe publish``: what is printed, and what is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.artifacts import Comparison, Confirmation, PublishPlan
from pipeline.cli import tritonpipe
from pipeline.flows import handwritten
from pipeline.flows.handwritten import PublicationResult, PublishedEntry
from pipeline.manifest import FileDigest


def confirmation(version: int) -> Confirmation:
    comparison = Comparison(
        subject="triton grpc", output="y", rows=1, mismatched=0, max_absolute_error=0.25
    )
    return Confirmation(
        version=version, comparisons=(comparison,), seconds_to_ready=1.0, latency_milliseconds={}
    )


RESULT = PublicationResult(
    entries=tuple(
        PublishedEntry(
            outcome=outcome,
            model=model,
            version=2,
            digest="sha256:0123456789abcdef",
            previous=previous,
            confirmation=confirmation(2),
        )
        for model, outcome, previous in (("a", "published", None), ("b", "unchanged", 2))
    ),
    seconds={"commit": 1.0},
)
PLAN = PublishPlan(
    model="a",
    version=2,
    previous=1,
    uploads=(FileDigest(path="model.py", size=3, sha256="0"),),
    deletes=(),
    commit=True,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    asked: list[tuple[str, Any]] = []

    def publish(paths: Any, _settings: object, *, progress: object) -> PublicationResult:
        asked.append(("publish", paths))
        return RESULT

    def plan(paths: Any, _settings: object, *, progress: object) -> tuple[PublishPlan, ...]:
        asked.append(("plan", paths))
        return (PLAN,)

    monkeypatch.setattr(handwritten, "publish", publish)
    monkeypatch.setattr(handwritten, "plan", plan)
    return asked


def run(*arguments: str) -> Result:
    return CliRunner().invoke(tritonpipe, ["publish", *arguments], catch_exceptions=False)


def test_several_paths_are_published_at_once(asked: list[tuple[str, Any]]) -> None:
    result = run("repository/a", "repository/b")
    assert asked == [("publish", (Path("repository/a"), Path("repository/b")))]
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["a", "2", "published", "nothing", "2.5e-01", "sha256:0123456789ab"]
    assert lines[2][:5] == ["b", "2", "unchanged", "version", "2"]


def test_json_is_the_whole_result(asked: list[tuple[str, Any]]) -> None:
    document = json.loads(run("a", "--json").stdout)
    assert [e["model"] for e in document["entries"]] == ["a", "b"]
    assert document["seconds"] == {"commit": 1.0}


def test_a_dry_run_only_plans(asked: list[tuple[str, Any]]) -> None:
    assert "upload  a/2/model.py  3 bytes" in run("a", "--dry-run").stdout
    assert json.loads(run("a", "--dry-run", "--json").stdout)[0]["version"] == 2
    assert {what for what, _paths in asked} == {"plan"}


def test_without_a_path_nothing_is_asked(asked: list[tuple[str, Any]]) -> None:
    result = CliRunner().invoke(tritonpipe, ["publish"])
    assert result.exit_code == 2
    assert "PATH" in result.stderr
    assert asked == []


def test_the_help_has_examples() -> None:
    assert "tritonpipe publish model_repository/" in run("--help").stdout
