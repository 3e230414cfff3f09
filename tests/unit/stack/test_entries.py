from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.stack import triton_server
from pipeline.stack.s3_server import repository_folder
from pipeline.stack.state import StateDirectory
from pipeline.stack.triton_server import EntryState, wait_for_entries

Index = list[dict[str, str]]


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    state = StateDirectory(tmp_path)
    for name in ("good", "bad", "worse"):
        (repository_folder(state) / name).mkdir(parents=True)
        (repository_folder(state) / name / "config.pbtxt").touch()
    (repository_folder(state) / "upload-without-config" / "1").mkdir(parents=True)
    return state


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the server answer these indices, the last one for ever."""

    def set_answers(*indices: Index) -> None:
        left = list(indices)

        def answer(_port: int, _path: str, **_options: object) -> tuple[int, bytes]:
            index = left.pop(0) if len(left) > 1 else left[0]
            return 200, json.dumps(index).encode()

        monkeypatch.setattr(triton_server, "http_status", answer)

    return set_answers


def version(name: str, state: str, reason: str = "", number: str = "1") -> dict[str, str]:
    return {"name": name, "version": number, "state": state, "reason": reason}


DECIDED = [
    version("good", "READY", number="2"),
    version("good", "UNAVAILABLE", "unloaded", number="1"),
    version("bad", "UNAVAILABLE", "Internal: no manifest\n\nAt:\n  model.py(3): initialize"),
    {"name": "worse"},
]


def test_each_entry_is_served_or_has_a_reason(
    state: StateDirectory, answers: Callable[..., None]
) -> None:
    answers(DECIDED)
    bad, good, worse = wait_for_entries(state, 8000, patience=0)
    assert bad == EntryState(name="bad", is_served=False, problem="Internal: no manifest")
    assert good == EntryState(name="good", is_served=True)
    assert "the log of Triton says why" in worse.problem


def test_loading_is_waited_for(state: StateDirectory, answers: Callable[..., None]) -> None:
    loading = [version("good", "LOADING"), version("bad", "LOADING"), {"name": "worse"}]
    answers([], loading, loading, DECIDED)
    assert [entry.is_served for entry in wait_for_entries(state, 8000, patience=20)] == [
        False,
        True,
        False,
    ]


def test_loading_is_not_waited_for_for_ever(
    state: StateDirectory, answers: Callable[..., None]
) -> None:
    answers([version("good", "LOADING")])
    assert not any(entry.is_served for entry in wait_for_entries(state, 8000, patience=0.3))
