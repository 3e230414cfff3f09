from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.store import store
from pipeline.errors import RequestError
from pipeline.stores import Conditions, probe


@pytest.fixture(autouse=True)
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("TRITONPIPE_LOCK", raising=False)
    monkeypatch.delenv("TRITONPIPE_RECORDS", raising=False)
    monkeypatch.setenv("TRITONPIPE_REPOSITORY", str(tmp_path / "repository"))
    return tmp_path / "repository"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(store, ["check", *arguments], catch_exceptions=False)


def test_it_is_tried_beside_the_repository_and_leaves_nothing(repository: Path) -> None:
    result = json.loads(run("--json").stdout)
    assert result == {
        "url": f"{repository}-records",
        "endpoint": "",
        "conditions": {"create": True, "replace": True, "atomic": True},
        "lock": "",
        "is_safe": True,
    }
    assert not repository.exists()
    assert list(repository.with_name("repository-records").iterdir()) == []


@pytest.mark.parametrize(
    ("lock", "words"),
    [("", "NOT safe  set TRITONPIPE_LOCK"), ("/locks", "safe     while all of them use this")],
)
def test_a_store_that_ignores_conditions_needs_a_lock(
    monkeypatch: pytest.MonkeyPatch, lock: str, words: str
) -> None:
    none = Conditions(create=False, replace=False, atomic=False)
    monkeypatch.setattr(probe, "probe_conditions", lambda _: none)
    monkeypatch.setenv("TRITONPIPE_LOCK", lock)
    output = run().stdout
    assert words in output
    assert output.count("IGNORED") == 3


def test_the_repository_itself_is_not_written_to(repository: Path) -> None:
    with pytest.raises(RequestError, match="inside the model repository"):
        run(f"{repository}/m")
    assert run(str(repository.with_name("other"))).exit_code == 0
