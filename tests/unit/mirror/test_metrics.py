from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from pipeline.mirror.metrics import StatusCollector
from pipeline.stores import StoredObject
from pipeline.testing.lying_store import LyingStore, SimulatedPublisher
from pipeline.testing.mirrored import InlineMirror


def test_a_store_that_hangs_is_seen_before_it_gives_up(
    start: Callable[..., InlineMirror],
    publisher: SimulatedPublisher,
    store: LyingStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher.publish("m", 1)
    mirror = start()
    mirror.look()
    assert mirror.follower.status().seconds_behind == 0
    now, seen, listing = time.time(), [], store.list_folder

    def hang(folder: str) -> list[StoredObject]:
        nonlocal now
        for _ in range(3):
            now += 6
            seen.append(mirror.follower.status().seconds_behind)
        return listing(folder)

    monkeypatch.setattr("pipeline.mirror.follow.time.time", lambda: now)
    monkeypatch.setattr(store, "list_folder", hang)
    mirror.look()
    assert seen == [0, pytest.approx(12), pytest.approx(18)]
    assert mirror.follower.status().seconds_behind == 0


def test_metrics_tell_what_the_status_tells(
    start: Callable[..., InlineMirror], publisher: SimulatedPublisher, store: LyingStore
) -> None:
    mirror = start()
    registry = CollectorRegistry()
    registry.register(StatusCollector(mirror.follower.status))

    def metrics() -> dict[str, str]:
        text = generate_latest(registry).decode()
        lines = (line for line in text.splitlines() if not line.startswith("#"))
        return dict(line.removeprefix("tritonpipe_mirror_").rsplit(" ", 1) for line in lines)

    assert metrics()["last_success_timestamp_seconds"] == "0.0"
    assert float(metrics()["seconds_behind"]) > 0
    publisher.publish("m", 1)
    mirror.look()
    store.put("foreign/config.pbtxt", b"")
    store.tell_lie("denied", 1)
    mirror.look()
    found = metrics()
    assert float(found["last_success_timestamp_seconds"]) > 0
    assert (found["models"], found["versions"]) == ("1.0", "1.0")
    assert found['requests_total{kind="list"}'] == "2.0"
    assert found['failures_total{reason="denied"}'] == "1.0"
    assert found['troubled_models{model="foreign",reason="denied"}'] == "1.0"
    assert float(found["seconds_behind"]) > 0
    assert found["downloaded_bytes_total"] == f"{len(b'graph-1') + 10:.1f}"
    mirror.look()
    found = metrics()
    assert found["seconds_behind"] == "0.0"
    assert found['troubled_models{model="foreign",reason="refused"}'] == "1.0"
