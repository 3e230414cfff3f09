from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest

from pipeline.artifacts import RepositoryEntry
from pipeline.errors import ConflictError, UnavailableError
from pipeline.flows.commit import commit, withdraw_config, withdraw_files
from pipeline.flows.publish import damage, known_keys, plan_publication, read_state, upload
from pipeline.manifest import Lineage, Manifest, digest_folder
from pipeline.stores import transfer
from pipeline.stores.objects import ObjectStore
from pipeline.testing.lagging_store import LaggingStore
from pipeline.testing.simulated import Fault, Killed, SimulatedLocks, SimulatedStore, World


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
    plan = plan_publication(store, read_state(store, entry.manifest.model), entry)
    upload(store, entry, plan, held=SimulatedLocks())
    commit(store, read_state(store, entry.manifest.model), entry.config, held=SimulatedLocks())


def test_the_config_is_last_and_the_manifest_before_it(
    store: SimulatedStore, tmp_path: Path
) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    assert store.writes[-1] == "m/config.pbtxt"
    data = [key for key in store.writes if key.startswith("m/1/")]
    assert data[-1] == "m/1/manifest.json"


def test_only_what_triton_knows_is_below_the_model(store: SimulatedStore, tmp_path: Path) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    assert set(store.snapshot()) == {
        "m/config.pbtxt",
        "m/warmup/README",
        "m/1/manifest.json",
        "m/1/model.onnx",
        "m/1/warmup-0.bin",
    }


def test_publishing_twice_is_publishing_once(store: SimulatedStore, tmp_path: Path) -> None:
    entry = entry_of(tmp_path, 1)
    publish_all(store, entry)
    store.writes.clear()
    plan = plan_publication(store, read_state(store, "m"), entry)
    assert plan.is_empty
    upload(store, entry, plan, held=SimulatedLocks())
    assert store.writes == [], "a write into the served folder would reload the version"


def test_a_second_version_touches_nothing_of_the_first(
    store: SimulatedStore, tmp_path: Path
) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    before = {k: v for k, v in store.snapshot().items() if k != "m/config.pbtxt"}
    store.writes.clear()
    publish_all(store, entry_of(tmp_path, 2, b"other"))
    assert before.items() <= store.snapshot().items()
    assert all(key.startswith("m/2/") for key in store.writes[:-1])


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.KILL])
@pytest.mark.parametrize("step", range(14))
def test_broken_anywhere_in_the_upload_nothing_served_changes_and_the_next_run_finishes(
    world: World, store: SimulatedStore, tmp_path: Path, step: int, fault: Fault
) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    served = store.get("m/config.pbtxt")
    entry = entry_of(tmp_path, 2, b"other")
    plan = plan_publication(store, read_state(store, "m"), entry)
    world.break_at(step, fault)
    with contextlib.suppress(UnavailableError, Killed):
        upload(store, entry, plan, held=SimulatedLocks())
    world.break_at(0, None)
    assert store.get("m/config.pbtxt") == served
    publish_all(store, entry)
    assert read_state(store, "m").version == 2
    assert damage(store, entry.manifest) == []


def test_leftovers_of_a_killed_run_are_replaced(store: SimulatedStore, tmp_path: Path) -> None:
    store.put("m/1/model.onnx", b"half")
    store.put("m/1/old.data", b"left behind")
    entry = entry_of(tmp_path, 1)
    plan = plan_publication(store, read_state(store, "m"), entry)
    assert plan.deletes == ("m/1/old.data",)
    publish_all(store, entry)
    assert store.get("m/1/model.onnx") == b"graph"
    assert store.get("m/1/old.data") is None


def test_the_served_version_never_changes_its_bytes(store: SimulatedStore, tmp_path: Path) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    changed = entry_of(tmp_path, 1, b"changed")
    with pytest.raises(ConflictError, match="made from other bytes"):
        plan_publication(store, read_state(store, "m"), changed)


def test_a_config_of_somebody_else_is_not_overwritten(
    store: SimulatedStore, tmp_path: Path
) -> None:
    store.put("m/config.pbtxt", b'name: "m" version_policy { latest { } }')
    with pytest.raises(ConflictError, match="did not write"):
        plan_publication(store, read_state(store, "m"), entry_of(tmp_path, 1))


def test_a_store_that_loses_bytes_is_noticed_before_the_commit(
    world: World, tmp_path: Path
) -> None:
    class LosingStore(SimulatedStore):
        def put(self, key: str, data: bytes | Path) -> None:
            super().put(key, b"" if key.endswith("model.onnx") else data)

    store = LosingStore(world)
    with pytest.raises(ConflictError, match=r"model\.onnx has 0 bytes"):
        publish_all(store, entry_of(tmp_path, 1))
    assert store.get("m/config.pbtxt") is None
    assert store.get("m/1/manifest.json") is None


def test_a_store_that_alters_bytes_is_noticed_before_the_commit(
    world: World, tmp_path: Path
) -> None:
    class AlteringStore(SimulatedStore):
        def put(self, key: str, data: bytes | Path) -> None:
            super().put(key, b"grapf" if key.endswith("model.onnx") else data)

    store = AlteringStore(world)
    with pytest.raises(ConflictError, match=r"m/1/model\.onnx has other bytes than were sent"):
        publish_all(store, entry_of(tmp_path, 1, b"graph"))
    assert store.get("m/config.pbtxt") is None
    assert store.get("m/1/manifest.json") is None


@pytest.mark.parametrize("offset", [-3600.0, -0.5, 0.0, 0.5, 3600.0])
def test_the_commit_is_newer_by_a_second_whatever_the_clocks_say(
    world: World,
    store: SimulatedStore,
    tmp_path: Path,
    offset: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(world, "time", lambda: world.now + offset)
    for version in (1, 2, 1):
        entry = entry_of(tmp_path / str(len(store.writes)), version)
        plan = plan_publication(store, read_state(store, "m"), entry)
        upload(store, entry, plan, held=SimulatedLocks())
        commit(store, read_state(store, "m"), entry.config, held=SimulatedLocks())
        objects = {o.key: o.last_modified for o in store.list_folder("m")}
        committed = objects.pop("m/config.pbtxt")
        assert committed > max(objects.values())


def test_two_commits_are_never_in_one_second(
    world: World, store: SimulatedStore, tmp_path: Path
) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    first = store.head("m/config.pbtxt")
    commit(store, read_state(store, "m"), entry_of(tmp_path, 2).config, held=SimulatedLocks())
    second = store.head("m/config.pbtxt")
    assert first is not None
    assert second is not None
    assert second.last_modified > first.last_modified


def test_of_two_commits_planned_on_the_same_state_one_is_refused(
    store: SimulatedStore, tmp_path: Path
) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    planned = read_state(store, "m")
    commit(store, planned, entry_of(tmp_path, 2).config, held=SimulatedLocks())
    with pytest.raises(ConflictError, match="somebody else has committed"):
        commit(store, planned, entry_of(tmp_path, 3).config, held=SimulatedLocks())
    assert read_state(store, "m").version == 2


def test_the_store_itself_refuses_what_slips_in_between(
    store: SimulatedStore, tmp_path: Path, world: World
) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    planned, theirs = read_state(store, "m"), entry_of(tmp_path, 2).config.encode()

    class Between(SimulatedLocks):
        def require_held(self) -> None:
            ObjectStore.put(store, "m/config.pbtxt", theirs)

    with pytest.raises(ConflictError, match="somebody else has committed"):
        commit(store, planned, entry_of(tmp_path, 3).config, held=Between())
    assert read_state(store, "m").version == 2


def test_without_the_lock_nothing_is_committed(store: SimulatedStore, tmp_path: Path) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    lost = SimulatedLocks()
    lost.lost = True
    before = list(store.writes)
    with pytest.raises(ConflictError, match="the lock was lost"):
        commit(store, read_state(store, "m"), entry_of(tmp_path, 2).config, held=lost)
    assert store.writes == before


class LostAfter(SimulatedLocks):
    """A lock that can be asked so many times before it is lost."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def require_held(self) -> None:
        self.times -= 1
        self.lost = self.times < 0
        super().require_held()


def test_whoever_lost_the_lock_writes_nothing_into_what_another_may_have_published(
    store: SimulatedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "_LANES", ((0, 1),))
    publish_all(store, entry_of(tmp_path, 1))
    store.put("m/2/old.data", b"left behind")
    entry = entry_of(tmp_path, 2, b"other")
    (entry.folder / "manifest.json.sig").write_bytes(b"signature")
    plan = plan_publication(store, read_state(store, "m"), entry)
    store.writes.clear()
    sent = ["m/2/model.onnx", "m/2/warmup-0.bin", "m/2/manifest.json"]
    # Asked for the deletes, two files, the marker (which is there), the manifest, the signature.
    for times, count in enumerate((0, 0, 1, 2, 2, 3)):
        with pytest.raises(ConflictError, match="the lock was lost"):
            upload(store, entry, plan, held=LostAfter(times))
        assert (store.get("m/2/old.data") is None) == (times > 0)
        assert store.writes == sent[:count]
        store.writes.clear()
    upload(store, entry, plan, held=LostAfter(6))


def test_a_clock_that_stands_still_is_an_error_not_a_lost_commit(
    world: World, store: SimulatedStore, tmp_path: Path
) -> None:
    world.runs = False
    with pytest.raises(UnavailableError, match="did not keep a newer"):
        publish_all(store, entry_of(tmp_path, 1))


def test_taking_back_leaves_the_version_folder_alone(store: SimulatedStore, tmp_path: Path) -> None:
    publish_all(store, entry_of(tmp_path, 1))
    withdraw_config(store, "m")
    assert read_state(store, "m").version is None
    assert store.get("m/1/manifest.json") is not None
    withdraw_files(store, "m")
    assert store.snapshot() == {}


@pytest.mark.parametrize("key", ["m/1/model.onnx", "m/1/manifest.json", "m/1/extra"])
def test_damage_is_found_in_one_listing(store: SimulatedStore, tmp_path: Path, key: str) -> None:
    entry = entry_of(tmp_path, 1)
    publish_all(store, entry)
    assert damage(store, entry.manifest) == []
    store.put(key, b"other bytes, another size")
    [problem] = damage(store, entry.manifest)
    assert key in problem


@pytest.mark.parametrize("lag", [0.0, 2.0, 60.0])
def test_a_listing_that_is_late_neither_hides_nor_shows_a_config(
    world: World, tmp_path: Path, lag: float
) -> None:
    store = LaggingStore(world, lag)
    for version in (1, 2):
        config = entry_of(tmp_path, version).config
        commit(store, read_state(store, "m"), config, held=SimulatedLocks())
        state = read_state(store, "m")
        assert state.version == version
        assert state.objects["m/config.pbtxt"] == store.head("m/config.pbtxt")
    world.sleep(120)
    withdraw_config(store, "m")
    assert read_state(store, "m").version is None
    assert "m/config.pbtxt" not in read_state(store, "m").objects


def test_of_a_model_that_is_taken_away_nothing_stays_whatever_is_listed(
    world: World, tmp_path: Path
) -> None:
    store = LaggingStore(world)
    publish_all(store, entry_of(tmp_path, 1))
    store.lag = 60.0
    known = known_keys(store, read_state(store, "m"))
    withdraw_config(store, "m")
    withdraw_files(store, "m", known=known)
    assert store.snapshot() == {}


@pytest.mark.parametrize("lag", [2.0, 60.0])
def test_what_is_not_listed_yet_is_found_by_its_key(
    world: World, tmp_path: Path, lag: float
) -> None:
    store = LaggingStore(world)
    store.put("m/1/old.data", b"left behind")
    store.put("m/1/model.onnx", b"half")
    store.lag = lag
    world.sleep(120)
    entry = entry_of(tmp_path, 1)
    publish_all(store, entry)
    assert damage(store, entry.manifest) == []
    assert store.get("m/1/old.data") is None
    store.delete(["m/1/model.onnx"])
    world.sleep(120)
    [problem] = damage(store, entry.manifest)
    assert "m/1/model.onnx has no bytes" in problem
