from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.testing.lying_store import LyingStore, SimulatedPublisher
from pipeline.testing.mirrored import FileSteps, InlineMirror, file_steps

_STEPS = file_steps()


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fsync is for, a test cannot see; it takes most of the time of all of them."""
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)


@pytest.fixture
def store() -> LyingStore:
    return LyingStore()


@pytest.fixture
def publisher(store: LyingStore) -> SimulatedPublisher:
    return SimulatedPublisher(store)


@pytest.fixture
def steps() -> FileSteps:
    return _STEPS


@pytest.fixture
def start(store: LyingStore, tmp_path: Path) -> Iterator[Callable[..., InlineMirror]]:
    """Start a mirror of the store; the one before is dead then."""
    running: list[InlineMirror] = []

    def start(**options: Any) -> InlineMirror:
        while running:
            running.pop().close()
        running.append(InlineMirror(store, tmp_path / "mirror", **options))
        return running[-1]

    yield start
    while running:
        running.pop().close()
