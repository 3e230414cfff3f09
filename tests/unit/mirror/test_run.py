"""The mirror with its threads: a large download holds up nobody, and nothing ends the loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.mirror.advance import Rules
from pipeline.mirror.run import MirrorOptions, follow, open_mirror
from pipeline.testing.lying_store import LyingStore, SimulatedPublisher
from pipeline.testing.mirrored import unloadable

RULES = Rules(reserve_bytes=0, retry_seconds=0)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


class SlowStore(LyingStore):
    """Downloads files of the model ``slow`` when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()

    def download(self, key: str, path: Path) -> None:
        if key.startswith("slow/"):
            assert self.may_go_on.wait(10)
        super().download(key, path)


def test_a_slow_download_holds_up_no_other_model(tmp_path: Path) -> None:
    store = SlowStore()
    publisher = SimulatedPublisher(store)
    publisher.publish("slow", 1)
    changes = threading.Semaphore(0)
    options = MirrorOptions(directory=tmp_path / "mirror", rules=RULES)
    with open_mirror(store, options, lambda _text: None, changes.release) as follower:
        stop = threading.Event()
        loop = threading.Thread(
            target=follow, args=(follower,), kwargs={"interval": 0.01, "stop": stop}
        )
        loop.start()
        for version in (1, 2):
            publisher.publish("quick", version)
            assert changes.acquire(timeout=10)
            assert follower.records()["quick"].named == (version,)
        assert "slow" not in follower.records()
        assert follower.status().seconds_behind > 0
        store.may_go_on.set()
        assert changes.acquire(timeout=10)
        wait(lambda: follower.status().seconds_behind == 0)
        stop.set()
        loop.join()
        assert follower.records()["slow"].named == (1,)
    assert unloadable(tmp_path / "mirror") == []


def test_a_bug_in_one_model_or_look_ends_nothing(
    store: LyingStore,
    publisher: SimulatedPublisher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publisher.publish("a", 1)
    publisher.publish("b", 1)
    honest = store.get

    def buggy(key: str) -> bytes | None:
        if key.startswith("a/"):
            raise ZeroDivisionError
        return honest(key)

    monkeypatch.setattr(store, "get", buggy)
    listing = store.list_folder
    monkeypatch.setattr(store, "list_folder", lambda _folder: 1 / 0)
    options = MirrorOptions(directory=tmp_path / "mirror", rules=RULES)
    with open_mirror(store, options, lambda _text: None) as follower:
        stop = threading.Event()
        loop = threading.Thread(
            target=follow, args=(follower,), kwargs={"interval": 0.01, "stop": stop}
        )
        loop.start()
        wait(lambda: "a look at the store failed" in caplog.text)
        monkeypatch.setattr(store, "list_folder", listing)
        wait(lambda: "b" in follower.records() and follower.status().failures.get("bug", 0) > 0)
        assert "the mirror failed on a" in caplog.text
        monkeypatch.setattr(store, "get", honest)
        wait(lambda: "a" in follower.records())
        stop.set()
        loop.join()
