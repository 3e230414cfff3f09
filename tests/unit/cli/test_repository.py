"""``tritonpipe history | gc | fsck`` with stores in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import tritonpipe
from pipeline.cli.errors import EXIT_CODES, PROBLEMS_REMAIN
from pipeline.errors import ConflictError
from pipeline.flows import commit, confirm, fsck, garbage, history, publish, release, repair, serve
from pipeline.flows.repository import Repository
from pipeline.flows.servers import Servers
from pipeline.stores import Store
from pipeline.testing.simulated import SimulatedStore, World
from pipeline.testing.simulated_repository import SimulatedRepository


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> SimulatedRepository:
    world = World()
    for module in (commit, confirm, garbage, publish, release, repair, serve):
        monkeypatch.setattr(module, "time", world, raising=False)
    scene = SimulatedRepository(world, SimulatedStore(world))

    @contextmanager
    def servers(_settings: object) -> Iterator[Servers]:
        yield scene.servers

    @contextmanager
    def repository(_settings: object) -> Iterator[Repository]:
        yield scene.repository

    def stores(_settings: object) -> tuple[Store, Store]:
        return scene.store, scene.records

    monkeypatch.setattr(garbage, "open_servers", servers)
    monkeypatch.setattr(fsck, "open_repository", repository)
    monkeypatch.setattr(history, "open_stores", stores)
    scene.publish(1, 2, 3)
    scene.serve(1, 2, 3)
    return scene


def run(*arguments: str) -> tuple[Result, int]:
    result = CliRunner().invoke(
        tritonpipe, arguments, catch_exceptions=False, standalone_mode=False
    )
    return result, result.return_value or 0


def data(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json")[0].stdout)


def test_history_is_a_table_of_attempts_and_warnings_are_no_data(
    scene: SimulatedRepository,
) -> None:
    result, code = run("history", "m", "--limit", "2")
    assert (code, result.stdout.count("promote")) == (0, 2)
    assert "m/3, run run-3" in result.stdout
    assert "until now" in result.stdout
    assert result.stderr == "1 older ones are not shown\n"
    told = data("history", "m")
    assert [a["version"] for a in told["attempts"]] == [3, 2, 1]
    assert told["attempts"][0]["run_id"] == "run-3"
    scene.records.put("m/journal/00000001.json", b"")
    result, code = run("history", "m", "--json")
    assert "warning: the journal of m is damaged" in result.stderr
    assert len(json.loads(result.stdout)["problems"]) == 1


def test_gc_tells_what_is_kept_and_why_and_does_it_unless_it_is_a_dry_run(
    scene: SimulatedRepository,
) -> None:
    result, code = run("gc", "--keep", "1", "--dry-run")
    assert code == 0
    assert "would be removed" in result.stdout
    assert "a rollback would return to it" in result.stdout
    assert scene.folders() == {1, 2, 3}
    (told,) = data("gc", "--keep", "1")
    assert [g["version"] for g in told["garbage"]] == [1]
    assert scene.folders() == {2, 3}
    assert [a["outcome"] for a in data("history", "m", "--limit", "1")["attempts"]] == ["collected"]


def test_gc_that_leaves_a_model_alone_ends_as_a_conflict(scene: SimulatedRepository) -> None:
    scene.store.put("theirs/config.pbtxt", b'name: "theirs"')
    result, code = run("gc")
    assert code == EXIT_CODES[ConflictError]
    assert "warning: theirs was left alone" in result.stderr


def test_fsck_has_an_exit_code_of_its_own_until_nothing_is_left(
    scene: SimulatedRepository,
) -> None:
    assert run("fsck", "--deep")[1] == 0
    scene.store.delete(["m/2/manifest.json"])
    result, code = run("fsck")
    assert code == PROBLEMS_REMAIN
    assert code not in EXIT_CODES.values()
    assert "manifest-missing" in result.stdout
    assert "1 findings" in result.stderr
    result, code = run("fsck", "m", "--repair")
    assert code == 0
    assert "written back" in result.stdout
    assert data("fsck")["findings"] == []


@pytest.mark.parametrize("command", ["history", "gc", "fsck"])
def test_help_has_examples(command: str) -> None:
    result, _code = run(command, "--help")
    assert f"tritonpipe {command}" in result.stdout
