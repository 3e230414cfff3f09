"""What a mirror does with what the store says, right or wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import RefusedError
from pipeline.mirror.advance import Rules
from pipeline.mirror.local import LocalRepository
from pipeline.testing.lying_store import LIES, LyingStore, SimulatedPublisher
from pipeline.testing.mirrored import FileSteps, InlineMirror, unloadable
from pipeline.testing.simulated import Killed

Start = Callable[..., InlineMirror]


def files_of(directory: Path) -> dict[str, tuple[bytes, int]]:
    root = directory / "repository"
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def test_what_is_published_is_mirrored_and_nothing_else(
    start: Start, publisher: SimulatedPublisher, store: LyingStore, tmp_path: Path
) -> None:
    publisher.publish("m", 1)
    publisher.upload("m", 2)
    publisher.upload("never-committed", 1)
    store.put("m/notes.txt", b"x")
    store.put("stray.txt", b"x")
    store.put("with space/config.pbtxt", b"x")
    mirror = start()
    mirror.look()
    assert set(files_of(tmp_path / "mirror")) == {
        "m/config.pbtxt",
        "m/warmup/README",
        "m/1/manifest.json",
        "m/1/model.onnx",
        "m/1/deep/data.bin",
    }
    assert mirror.reasons() == {}
    assert unloadable(tmp_path / "mirror") == []


def test_nothing_changed_costs_one_listing(
    start: Start, publisher: SimulatedPublisher, store: LyingStore, tmp_path: Path
) -> None:
    publisher.publish("m", 1)
    mirror = start()
    mirror.look()
    before = files_of(tmp_path / "mirror")
    store.be_honest()
    mirror.look()
    again = start()
    again.look()
    assert store.calls == 2
    assert files_of(tmp_path / "mirror") == before
    assert again.follower.status().requests == {"list": 1, "get": 0}


def test_a_rollback_downloads_nothing(start: Start, publisher: SimulatedPublisher) -> None:
    mirror = start()
    for version in (1, 2):
        publisher.publish("m", version)
        mirror.look()
    bytes_before = mirror.follower.status().bytes
    publisher.commit("m", 1)
    mirror.look()
    assert mirror.serving("m") == (1,)
    assert mirror.follower.status().bytes == bytes_before


def test_two_versions_while_a_release_switches_there_and_back(
    start: Start, publisher: SimulatedPublisher
) -> None:
    mirror = start()
    publisher.publish("m", 1)
    mirror.look()
    publisher.upload("m", 2)
    for versions, previous in (((2, 1), None), ((2,), 1), ((1, 2), 1), ((1,), 2)):
        publisher.commit("m", *versions)
        mirror.look()
        assert mirror.reasons() == {}
        assert mirror.serving("m") == tuple(sorted(versions))
        assert mirror.follower.records()["m"].previous == previous
        mirror = start()
        assert mirror.follower.records()["m"].named == tuple(sorted(versions))


def test_the_config_is_always_newer_whatever_the_clock_says(
    start: Start,
    publisher: SimulatedPublisher,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mirror = start()
    publisher.publish("m", 1)
    mirror.look()
    path = tmp_path / "mirror" / "repository" / "m" / "config.pbtxt"
    times = [path.stat().st_mtime_ns]
    monkeypatch.setattr("pipeline.mirror.local.time.time_ns", lambda: 10**18)
    for version in (2, 1, 2):
        publisher.publish("m", version)
        mirror.look()
        newest = max(p.stat().st_mtime_ns for p in path.parent.rglob("*") if p != path)
        times.append(path.stat().st_mtime_ns)
        assert times[-1] > times[-2]
        assert times[-1] > newest or version == 1
    assert mirror.serving("m") == (2,)


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("goes_on", [False, True])
def test_one_lie_in_any_call_harms_nothing(
    lie: str,
    goes_on: bool,
    start: Start,
    publisher: SimulatedPublisher,
    store: LyingStore,
    tmp_path: Path,
) -> None:
    publisher.publish("m", 1)
    publisher.publish("other", 1)
    mirror = start()
    mirror.look()
    served = files_of(tmp_path / "mirror")
    publisher.publish("m", 2)
    calls = 1 + 2 + 2
    for at in range(calls):
        store.tell_lie(lie, at, goes_on=goes_on)
        mirror.look()
        assert store.calls > at
        assert files_of(tmp_path / "mirror") == served
        failures = mirror.follower.status().failures
        # Cut or garbled listings look like models that are gone: that is only seen in time.
        assert failures or (at == 0 and lie in {"truncated", "garbage"})
    store.be_honest()
    mirror.look()
    assert mirror.serving("m") == (2,)
    assert mirror.reasons() == {}
    assert mirror.follower.status().seconds_behind == 0


@pytest.mark.parametrize("lie", LIES)
def test_a_listing_that_lies_for_ever_removes_nothing(
    lie: str, start: Start, publisher: SimulatedPublisher, store: LyingStore, tmp_path: Path
) -> None:
    for name in ("a", "b", "c"):
        publisher.publish(name, 1)
    mirror = start()
    mirror.look()
    served = files_of(tmp_path / "mirror")
    for _ in range(10):
        store.tell_lie(lie, 0)
        mirror.look()
    assert files_of(tmp_path / "mirror") == served
    assert sum(mirror.follower.status().failures.values()) >= 2


def test_a_model_that_is_gone_is_removed_only_after_several_listings(
    start: Start, publisher: SimulatedPublisher, tmp_path: Path
) -> None:
    publisher.publish("gone", 1)
    publisher.publish("stays", 1)
    mirror = start()
    mirror.look()
    publisher.withdraw("gone")
    mirror.look()
    mirror.look()
    assert mirror.serving("gone") == (1,)
    mirror.look()
    assert mirror.local.models() == {"stays"}
    publisher.publish("gone", 1, b"other bytes")
    mirror.look()
    assert mirror.serving("gone") == (1,)
    assert unloadable(tmp_path / "mirror") == []


def test_a_config_that_is_gone_is_no_retirement(
    start: Start, publisher: SimulatedPublisher, store: LyingStore
) -> None:
    publisher.publish("m", 1)
    mirror = start()
    mirror.look()
    store.delete(["m/config.pbtxt"])
    for _ in range(5):
        mirror.look()
    assert mirror.serving("m") == (1,)
    assert mirror.reasons() == {"m": "refused"}


def spoil_manifest(store: LyingStore) -> None:
    store.put("m/2/manifest.json", b"{}")


def spoil_file(store: LyingStore) -> None:
    store.put("m/2/model.onnx", b"GRAPH-2")


def lose_file(store: LyingStore) -> None:
    store.delete(["m/2/model.onnx"])


def lose_manifest(store: LyingStore) -> None:
    store.delete(["m/2/manifest.json"])


def add_file(store: LyingStore) -> None:
    store.put("m/2/libtriton_evil.so", b"code")


def change_config(store: LyingStore) -> None:
    text = store.snapshot()["m/config.pbtxt"]
    assert text is not None
    store.put("m/config.pbtxt", text + b"\nmax_batch_size: 8")


def name_another(store: LyingStore) -> None:
    text = store.snapshot()["m/config.pbtxt"]
    assert text is not None
    store.put("m/config.pbtxt", text.replace(b'name: "m"', b'name: "n"'))


def name_latest(store: LyingStore) -> None:
    store.put("m/config.pbtxt", b'name: "m" backend: "onnxruntime"')


def put_another_version(store: LyingStore) -> None:
    data = store.snapshot()["m/1/manifest.json"]
    assert data is not None
    store.put("m/2/manifest.json", data)


def escape(store: LyingStore) -> None:
    data = store.snapshot()["m/2/manifest.json"]
    assert data is not None
    store.put("m/2/manifest.json", data.replace(b"deep/data.bin", b"../../evil.bin"))


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_manifest, spoil_file, lose_file, lose_manifest, add_file, change_config,
        name_another, name_latest, put_another_version, escape,
    ],
)  # fmt: skip
def test_what_cannot_be_verified_is_refused_until_it_is_right(
    spoil: Callable[[LyingStore], None],
    start: Start,
    publisher: SimulatedPublisher,
    store: LyingStore,
    tmp_path: Path,
) -> None:
    publisher.publish("m", 1)
    publisher.publish("other", 1)
    mirror = start()
    mirror.look()
    served = files_of(tmp_path / "mirror")
    publisher.publish("m", 2)
    right = store.snapshot()
    spoil(store)
    publisher.publish("other", 2)
    mirror.look()
    mirror.look()
    assert mirror.reasons() == {"m": "refused"}
    assert mirror.serving("other") == (2,)
    assert {k: v for k, v in files_of(tmp_path / "mirror").items() if k.startswith("m/")} == {
        k: v for k, v in served.items() if k.startswith("m/")
    }
    assert list((tmp_path / "mirror" / "staging").glob("m/*")) == []
    for key in store.snapshot().keys() - right.keys():
        store.delete([key])
    for key, data in right.items():
        if key.startswith("m/") and data is not None:
            store.put(key, data)
    mirror.look()
    assert mirror.serving("m") == (2,)
    assert mirror.reasons() == {}


def test_a_foreign_model_is_refused_and_breaks_nothing(
    start: Start, publisher: SimulatedPublisher, store: LyingStore
) -> None:
    publisher.publish("m", 1)
    store.put("foreign/config.pbtxt", b'name: "foreign"')
    store.put("foreign/1/model.py", b"import os")
    mirror = start()
    mirror.look()
    assert mirror.local.models() == {"m"}
    assert mirror.reasons() == {"foreign": "refused"}
    assert mirror.follower.status().seconds_behind == 0
    store.delete(["foreign/config.pbtxt", "foreign/1/model.py"])
    mirror.look()
    assert mirror.reasons() == {}


def test_a_refused_model_is_tried_again_later_or_when_it_changes(
    start: Start, publisher: SimulatedPublisher, store: LyingStore
) -> None:
    publisher.publish("m", 1)
    lose = "m/1/model.onnx"
    data = store.snapshot()[lose]
    assert data is not None
    store.delete([lose])
    mirror = start(rules=Rules(retry_seconds=1e9))
    mirror.look()
    store.be_honest()
    mirror.look()
    assert store.calls == 1
    store.put(lose, data)
    mirror.look()
    assert mirror.serving("m") == (1,)


def test_bytes_that_change_under_one_number_are_taken_in_one_step(
    start: Start,
    publisher: SimulatedPublisher,
    tmp_path: Path,
    steps: FileSteps,
    store: LyingStore,
) -> None:
    publisher.publish("m", 1)
    publisher.publish("m", 2)
    start().look()
    publisher.publish("m", 2, b"made anew")
    mirror = start()
    fatal = 0
    while True:
        try:
            with steps.counted(fatal=fatal):
                mirror.look()
            break
        except Killed:
            fatal += 1
        assert unloadable(tmp_path / "mirror") == []
        mirror = start()
    assert fatal > 5
    path = tmp_path / "mirror" / "repository" / "m" / "2" / "model.onnx"
    assert path.read_bytes() == b"made anew-2"


def test_killed_before_any_file_operation_the_next_start_goes_on(
    start: Start, publisher: SimulatedPublisher, steps: FileSteps, tmp_path: Path
) -> None:
    """Over a life with a new model, a new version, a rollback, a removal and a collection."""
    life: list[Callable[[], object]] = [
        lambda: publisher.publish("stays", 1),
        lambda: publisher.publish("m", 1),
        lambda: publisher.publish("m", 2),
        lambda: publisher.publish("m", 3),
        lambda: publisher.commit("m", 2),
        lambda: publisher.withdraw("m"),
    ]
    rules = Rules(grace_seconds=0, reserve_bytes=0, retry_seconds=0, removal_listings=1)
    kills = 0
    for change in life:
        change()
        fatal = 0
        while True:
            try:
                with steps.counted(fatal=fatal):
                    mirror = start(rules=rules)
                    mirror.look()
                    mirror.look()
                break
            except Killed:
                kills += 1
                fatal += 1
            assert unloadable(tmp_path / "mirror") == []
        assert unloadable(tmp_path / "mirror") == []
        served = publisher.committed.get("m", [""])[-1]
        assert mirror.local.config("m") in {served, None}
    assert mirror.local.models() == {"stays"}
    assert list((tmp_path / "mirror" / "staging").iterdir()) == []
    assert kills > 60


def test_it_starts_from_its_folder_when_the_store_is_down(
    start: Start, publisher: SimulatedPublisher, store: LyingStore, tmp_path: Path
) -> None:
    publisher.publish("m", 1)
    start().look()
    served = files_of(tmp_path / "mirror")
    store.tell_lie("down", 0, goes_on=True)
    mirror = start(read_digests=True)
    mirror.look()
    assert files_of(tmp_path / "mirror") == served
    status = mirror.follower.status()
    assert [m.serving for m in status.models] == [(1,)]
    assert status.problem
    assert status.failures == {"unavailable": 1}


@pytest.mark.parametrize("is_hidden", [False, True])
def test_local_damage_is_found_at_the_start_and_mended(
    is_hidden: bool, start: Start, publisher: SimulatedPublisher, tmp_path: Path
) -> None:
    publisher.publish("m", 1)
    start().look()
    path = tmp_path / "mirror" / "repository" / "m" / "1" / "model.onnx"
    before = path.stat()
    path.write_bytes(b"x" * before.st_size)
    if is_hidden:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        start().look()
        assert path.read_bytes().startswith(b"x")
    start(read_digests=is_hidden).look()
    assert path.read_bytes() == b"graph-1"
    assert unloadable(tmp_path / "mirror") == []


def test_a_version_that_was_damaged_meanwhile_is_not_rolled_back_to(
    start: Start, publisher: SimulatedPublisher, tmp_path: Path
) -> None:
    mirror = start()
    for version in (1, 2):
        publisher.publish("m", version)
        mirror.look()
    (tmp_path / "mirror" / "repository" / "m" / "1" / "model.onnx").write_bytes(b"truncat")
    publisher.commit("m", 1)
    mirror.look()
    assert mirror.serving("m") == (1,)
    assert unloadable(tmp_path / "mirror") == []


def test_what_a_damaged_model_names_is_never_collected(
    start: Start, publisher: SimulatedPublisher, store: LyingStore, tmp_path: Path
) -> None:
    publisher.upload("m", 1)
    publisher.publish("m", 2)
    publisher.commit("m", 1, 2)
    rules = Rules(grace_seconds=0, reserve_bytes=0, retry_seconds=1e9)
    start(rules=rules).look()
    (tmp_path / "mirror" / "repository" / "m" / "2" / "model.onnx").write_bytes(b"x")
    store.delete(["m/2/manifest.json"])
    mirror = start(rules=rules)
    for _ in range(3):
        mirror.look()
    assert mirror.local.version_folders("m") == {1, 2}
    assert mirror.reasons() == {"m": "refused"}


def test_what_python_compiles_beside_a_model_is_no_damage(
    start: Start, publisher: SimulatedPublisher, tmp_path: Path
) -> None:
    publisher.publish("m", 1)
    start().look()
    cache = tmp_path / "mirror" / "repository" / "m" / "1" / "__pycache__"
    for read_digests in (False, True):
        cache.mkdir()
        (cache / "model.cpython-312.pyc").write_bytes(b"code")
        mirror = start(read_digests=read_digests)
        publisher.commit("m", 1)
        mirror.look()
        assert mirror.reasons() == {}
        assert mirror.follower.status().bytes == 0
        assert cache.exists() is not read_digests
        if cache.exists():
            (cache / "model.cpython-312.pyc").unlink()
            cache.rmdir()


def test_without_records_everything_is_read_and_nothing_is_downloaded(
    start: Start, publisher: SimulatedPublisher, tmp_path: Path
) -> None:
    publisher.publish("m", 1)
    start().look()
    served = files_of(tmp_path / "mirror")
    (tmp_path / "mirror" / "state" / "models" / "m.json").write_text("{torn")
    mirror = start()
    mirror.look()
    assert files_of(tmp_path / "mirror") == served
    assert mirror.follower.status().bytes == 0
    assert mirror.reasons() == {}


def test_old_versions_go_after_a_while_but_never_the_one_before(
    start: Start, publisher: SimulatedPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr("pipeline.mirror.advance.time.time", lambda: now)
    mirror = start(rules=Rules(grace_seconds=100, reserve_bytes=0))
    for version in (1, 2, 3):
        publisher.publish("m", version)
        mirror.look()
    assert mirror.local.version_folders("m") == {1, 2, 3}
    now += 99
    mirror.look()
    assert mirror.local.version_folders("m") == {1, 2, 3}
    now += 2
    mirror.look()
    assert mirror.local.version_folders("m") == {2, 3}
    now += 1000
    mirror.look()
    assert mirror.local.version_folders("m") == {2, 3}


def test_what_would_not_fit_is_not_begun(
    start: Start,
    publisher: SimulatedPublisher,
    store: LyingStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher.publish("m", 1)
    mirror = start(rules=Rules(reserve_bytes=100, retry_seconds=0))
    mirror.look()
    publisher.publish("m", 2)
    size = len(b"graph-2") + 10
    monkeypatch.setattr(LocalRepository, "free_bytes", lambda _self: 100 + size - 1)
    mirror.look()
    assert mirror.serving("m") == (1,)
    assert mirror.reasons() == {"m": "disk"}
    assert mirror.follower.status().failures == {"disk": 1}
    publisher.commit("m", 1)
    mirror.look()
    assert mirror.reasons() == {}, "a rollback needs no space"
    monkeypatch.setattr(LocalRepository, "free_bytes", lambda _self: 100 + size)
    publisher.commit("m", 2)
    mirror.look()
    assert mirror.serving("m") == (2,)


class FakeSeal:
    name = "fake"

    def check(self, folder: Path) -> None:
        signature = folder / "manifest.json.sig"
        if not signature.is_file() or signature.read_bytes() != b"good":
            raise RefusedError(f"{folder.name} was signed by somebody else")


def test_with_a_key_only_what_is_signed_is_served(
    start: Start, publisher: SimulatedPublisher, store: LyingStore, tmp_path: Path
) -> None:
    publisher.publish("m", 1)
    start().look()
    mirror = start(seal=FakeSeal())
    mirror.look()
    assert mirror.serving("m") == (1,), "what is served stays"
    assert mirror.reasons() == {"m": "refused"}
    publisher.upload("m", 2)
    store.put("m/2/manifest.json.sig", b"bad")
    publisher.commit("m", 2)
    mirror.look()
    assert mirror.serving("m") == (1,)
    store.put("m/2/manifest.json.sig", b"good")
    mirror.look()
    assert mirror.serving("m") == (2,)
    assert mirror.reasons() == {}
    bytes_before = mirror.follower.status().bytes
    for seal in (None, FakeSeal()):
        again = start(seal=seal, read_digests=True)
        again.look()
        assert again.reasons() == {}
        assert again.follower.status().bytes == 0
    assert bytes_before > 0
    assert unloadable(tmp_path / "mirror") == []
