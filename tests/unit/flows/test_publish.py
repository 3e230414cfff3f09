from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from pipeline.artifacts import RepositoryEntry
from pipeline.errors import ConflictError, UnavailableError
from pipeline.flows import publish
from pipeline.flows.publish import (
    commit,
    plan_publication,
    published_manifest,
    read_state,
    upload,
    withdraw_config,
)
from pipeline.manifest import Lineage, Manifest, digest_folder
from pipeline.stores import StoredObject
from pipeline.stores.objects import ObjectStore


class Clock:
    """The clock of store and publisher; stands still unless somebody writes or sleeps."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.runs = True

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if self.runs:
            self.now += seconds


class RecordingStore(ObjectStore):
    """Remembers the order of writes and stamps them in whole seconds; can fail from the n-th on."""

    def __init__(self, clock: Clock) -> None:
        super().__init__("memory://test", MemoryStore())
        self.clock = clock
        self.writes: list[str] = []
        self.fail_at: int | None = None
        self._stamps: dict[str, int] = {}

    def put(self, key: str, data: bytes | Path) -> None:
        self.writes.append(key)
        if self.fail_at is not None and len(self.writes) > self.fail_at:
            raise UnavailableError("killed")
        super().put(key, data)
        self.clock.sleep(0.1)
        self._stamps[key] = int(self.clock.now)

    def create(self, key: str, data: bytes) -> bool:
        self._stamps.setdefault(key, int(self.clock.now))
        return super().create(key, data)

    def head(self, key: str) -> StoredObject | None:
        found = super().head(key)
        return None if found is None else self._stamped(found)

    def list_folder(self, folder: str) -> list[StoredObject]:
        return [self._stamped(o) for o in super().list_folder(folder)]

    def snapshot(self) -> dict[str, bytes | None]:
        return {o.key: self.get(o.key) for o in self.list_folder("")}

    def _stamped(self, stored: StoredObject) -> StoredObject:
        return replace(stored, last_modified=datetime.fromtimestamp(self._stamps[stored.key], UTC))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(publish, "time", clock)
    return clock


@pytest.fixture
def store(clock: Clock) -> RecordingStore:
    return RecordingStore(clock)


def entry_of(
    folder: Path, version: int, content: bytes = b"graph", name: str = "m"
) -> RepositoryEntry:
    folder = folder / f"{name}-{version}-{content.hex()}"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    (folder / "warmup-0.bin").write_bytes(b"\0")
    config = f'name: "{name}" version_policy {{ specific {{ versions: {version} }} }}'
    manifest = Manifest(
        model=name,
        version=version,
        config_sha256=hashlib.sha256(config.encode()).hexdigest(),
        files=digest_folder(folder),
        lineage=Lineage(
            registered_model=name,
            registered_version=version,
            run_id=None,
            source="s",
            source_digest="d",
            flavor="onnx",
        ),
        tools={},
    )
    return RepositoryEntry(folder=folder, manifest=manifest, config=config)


def publish_all(store: ObjectStore, entry: RepositoryEntry) -> None:
    plan = plan_publication(read_state(store, entry.manifest.model), entry)
    upload(store, entry, plan)
    commit(store, entry.manifest.model, entry.config)


def test_the_config_is_last_and_the_manifest_before_it(
    store: RecordingStore, tmp_path: Path
) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    assert store.writes[-1] == "m/config.pbtxt"
    data = [key for key in store.writes if key.startswith("m/1/")]
    assert data[-1] == "m/1/manifest.json"


def test_only_what_triton_knows_is_below_the_model(store: RecordingStore, tmp_path: Path) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    assert set(store.snapshot()) == {
        "m/config.pbtxt",
        "m/warmup/README",
        "m/1/manifest.json",
        "m/1/model.onnx",
        "m/1/warmup-0.bin",
    }


def test_publishing_twice_is_publishing_once(store: RecordingStore, tmp_path: Path) -> None:
    entry = entry_of(tmp_path, 1)
    publish_all(store, entry)
    before = store.snapshot()
    publish_all(store, entry)
    assert store.snapshot() == before
    assert not plan_publication(read_state(store, "m"), entry).commit


def test_a_second_version_touches_nothing_of_the_first(
    store: RecordingStore, tmp_path: Path
) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    before = {k: v for k, v in store.snapshot().items() if k != "m/config.pbtxt"}
    store.writes.clear()
    publish_all(store, entry_of(tmp_path, 2, b"other"))
    assert before.items() <= store.snapshot().items()
    assert all(key.startswith("m/2/") for key in store.writes[:-1])


@pytest.mark.parametrize("fail_at", range(4))
def test_killed_before_the_commit_nothing_served_has_changed_and_the_next_run_finishes(
    store: RecordingStore, tmp_path: Path, fail_at: int
) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    served = store.get("m/config.pbtxt")
    store.writes.clear()
    store.fail_at = fail_at
    entry = entry_of(tmp_path, 2, b"other")
    with pytest.raises(UnavailableError):
        publish_all(store, entry)
    assert store.get("m/config.pbtxt") == served
    store.fail_at = None
    publish_all(store, entry)
    assert read_state(store, "m").version == 2
    assert published_manifest(store, "m", 2) == entry.manifest


def test_leftovers_of_a_killed_run_are_replaced(store: RecordingStore, tmp_path: Path) -> None:
    store.put("m/1/model.onnx", b"half")
    store.put("m/1/old.data", b"left behind")
    entry = entry_of(tmp_path, 1)
    plan = plan_publication(read_state(store, "m"), entry)
    assert plan.deletes == ("m/1/old.data",)
    publish_all(store, entry)
    assert store.get("m/1/model.onnx") == b"graph"
    assert store.get("m/1/old.data") is None


def test_the_served_version_never_changes_its_bytes(store: RecordingStore, tmp_path: Path) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    changed = entry_of(tmp_path, 1, b"changed")
    changed = replace(changed, config=changed.config + " ")
    with pytest.raises(ConflictError, match="made from other bytes"):
        plan_publication(read_state(store, "m"), changed)


def test_a_config_of_somebody_else_is_not_overwritten(
    store: RecordingStore, tmp_path: Path
) -> None:
    store.put("m/config.pbtxt", b'name: "m" version_policy { latest { } }')
    with pytest.raises(ConflictError, match="did not write"):
        plan_publication(read_state(store, "m"), entry_of(tmp_path, 1))


def test_a_store_that_loses_bytes_is_noticed_before_the_commit(
    clock: Clock, tmp_path: Path
) -> None:
    class LosingStore(RecordingStore):
        def put(self, key: str, data: bytes | Path) -> None:
            super().put(key, b"" if key.endswith("model.onnx") else data)

    store = LosingStore(clock)
    with pytest.raises(ConflictError, match=r"model\.onnx has 0 bytes"):
        publish_all(store, entry_of(tmp_path, 1))
    assert store.get("m/config.pbtxt") is None


@pytest.mark.parametrize("offset", [-3600.0, -0.5, 0.0, 0.5, 3600.0])
def test_the_commit_is_newer_by_a_second_whatever_the_clocks_say(
    clock: Clock,
    store: RecordingStore,
    tmp_path: Path,
    offset: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clock, "time", lambda: clock.now + offset)
    for version in (1, 2, 1):
        publish_all(store, entry_of(tmp_path / str(len(store.writes)), version))
        objects = {o.key: o.last_modified for o in store.list_folder("m")}
        committed = objects.pop("m/config.pbtxt")
        assert committed > max(objects.values())


def test_two_commits_are_never_in_one_second(
    clock: Clock, store: RecordingStore, tmp_path: Path
) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    first = store.head("m/config.pbtxt")
    commit(store, "m", entry_of(tmp_path, 2).config)
    second = store.head("m/config.pbtxt")
    assert first is not None
    assert second is not None
    assert second.last_modified > first.last_modified


def test_a_clock_that_stands_still_is_an_error_not_a_lost_commit(
    clock: Clock, store: RecordingStore, tmp_path: Path
) -> None:
    clock.runs = False
    with pytest.raises(UnavailableError, match="did not keep a newer"):
        publish_all(store, entry_of(tmp_path, 1))


def test_taking_back_leaves_the_version_folder_alone(store: RecordingStore, tmp_path: Path) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    withdraw_config(store, "m")
    assert read_state(store, "m").version is None
    assert published_manifest(store, "m", 1) is not None
