"""Laws of the check: every single change of a repository is found, and repairs restore it."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from pipeline.artifacts import Release
from pipeline.errors import (
    ConfirmationError,
    ConflictError,
    RequestError,
    SettingsError,
    TritonpipeError,
    UnavailableError,
)
from pipeline.findings import Severity
from pipeline.flows import garbage, repair
from pipeline.flows.fsck import Check, CheckReport
from pipeline.flows.garbage import Collector
from pipeline.flows.journal import ROLLBACK
from pipeline.flows.progress import silent
from pipeline.flows.retire import take_away
from pipeline.settings import Settings
from pipeline.stores import StoredObject
from pipeline.stores.objects import ObjectStore
from pipeline.testing.simulated import Fault, Killed, SimulatedStore, World
from pipeline.testing.simulated_registry import SimulatedRegistry
from pipeline.testing.simulated_repository import MODEL, SimulatedRepository
from pipeline.triton import VersionState

WARMUP = (
    'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 '
    'dims: 1 input_data_file: "../3/data.bin" } } }'
)
REPAIRABLE = {
    "m/1/manifest.json", "m/2/manifest.json", "m/3/manifest.json", "m/config.pbtxt",
    "m/warmup/README",
}  # fmt: skip
HARMLESS = {".tritonpipe"}
"""Its absence matters to an empty repository only."""


@pytest.fixture
def scene(
    world: World, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> SimulatedRepository:
    for module in (garbage, repair):
        monkeypatch.setattr(module, "time", world)
    scene = SimulatedRepository(world, store)
    scene.publish(1, 2, 3, warmup=WARMUP)
    scene.serve(1, 2, 3)
    return scene


def check(
    scene: SimulatedRepository, *models: str, deep: bool = True, repair: bool = False
) -> CheckReport:
    return Check(
        repository=scene.repository,
        deep=deep,
        repair=repair,
        lock_seconds=0,
        confirm_seconds=5,
        progress=silent,
    ).run(models)


def codes(report: CheckReport) -> set[str]:
    return {finding.code for finding in report.findings}


def keys_of(store: SimulatedStore) -> list[str]:
    return [o.key for o in ObjectStore.list_folder(store, "")]


def test_a_repository_as_published_is_clean(scene: SimulatedRepository) -> None:
    assert check(scene).findings == ()
    scene.serve(2, action=ROLLBACK)
    assert check(scene).findings == ()
    assert check(scene, repair=True).repairs == ()
    assert check(scene).models == 1


OBJECTS = [
    ".tritonpipe", "m/config.pbtxt", "m/warmup/README",
    *(f"m/{v}/{name}" for v in (1, 2, 3) for name in ("data.bin", "manifest.json", "model.onnx")),
]  # fmt: skip
RECORDS = [
    *(f"m/journal/0000000{n}.json" for n in range(1, 7)),
    *(f"m/releases/{v}/{name}" for v in (1, 2, 3) for name in ("release.json", "golden.npz")),
]


def test_the_laws_are_about_every_object(scene: SimulatedRepository) -> None:
    assert sorted(OBJECTS) == keys_of(scene.store)
    assert sorted(RECORDS) == keys_of(scene.records)


@pytest.mark.parametrize("key", [k for k in OBJECTS if k not in HARMLESS])
def test_every_missing_object_is_found_and_put_back_if_it_is_known(
    scene: SimulatedRepository, key: str
) -> None:
    before = scene.store.snapshot()
    scene.store.delete([key])
    assert any(key.startswith(f.subject) for f in check(scene, deep=False).findings)
    repaired_if_known(scene, key, before)


MUTATIONS: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "cut": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"x",
    "other": lambda _data: b"something else",
}


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("key", [k for k in OBJECTS if k not in HARMLESS | {"m/warmup/README"}])
def test_every_altered_object_is_found_and_put_right_if_it_is_known(
    scene: SimulatedRepository, key: str, mutation: str
) -> None:
    before = scene.store.snapshot()
    scene.store.put(key, MUTATIONS[mutation](before[key] or b""))
    found = check(scene)
    assert any(f.subject == key for f in found.findings), found.findings
    assert not found.ok
    repaired_if_known(scene, key, before)


def repaired_if_known(
    scene: SimulatedRepository, key: str, before: dict[str, bytes | None]
) -> None:
    damaged = scene.store.snapshot()
    done = check(scene, repair=True)
    if key in REPAIRABLE:
        assert len(done.repairs) == 1
        assert done.findings == ()
        assert scene.store.snapshot() | {"m/warmup/README": b""} == before | {
            "m/warmup/README": b""
        }
        assert scene.served == 3
        assert scene.entries[-1].event == "repaired"
        entries = scene.entries
        assert check(scene, repair=True).repairs == ()
        assert scene.entries == entries, "twice is once"
    else:
        assert done.repairs == ()
        assert scene.store.snapshot() == damaged, "nothing is touched that cannot be proven"


@pytest.mark.parametrize("key", RECORDS)
@pytest.mark.parametrize("data", [None, b"garbage", b""])
def test_every_missing_or_damaged_record_is_found(
    scene: SimulatedRepository, key: str, data: bytes | None
) -> None:
    if data is None:
        scene.records.delete([key])
    else:
        scene.records.put(key, data)
    assert not check(scene).ok


@pytest.mark.parametrize(
    "key",
    ["stray", "stray/x", ".hidden/1/x", "m/conf", "m/notes.txt", "m/notes/x", "m/3.tmp/x",
     "m/12345678901234567890/x", "m/2/extra", "m/3/sub/extra", "m/9/model.onnx", "new/1/model.onnx",
     "theirs/config.pbtxt"],
)  # fmt: skip
def test_every_object_too_many_is_found(scene: SimulatedRepository, key: str) -> None:
    scene.store.put(key, b"x")
    found = check(scene)
    assert any(key.startswith(f.subject.rstrip("/")) for f in found.findings)
    assert check(scene, MODEL).findings == tuple(f for f in found.findings if key[:2] == "m/")


def test_findings_say_what_follows_and_what_to_do(scene: SimulatedRepository) -> None:
    for key in ("m/2/extra", "m/9/x", "stray/x", "m/conf", "theirs/config.pbtxt"):
        scene.store.put(key, b"x")
    scene.store.delete(["m/config.pbtxt", "m/1/model.onnx", "m/2/manifest.json"])
    scene.records.put("m/releases/3/golden.npz", b"x")
    found = check(scene).findings
    assert len(found) >= 8
    assert [f.severity for f in found] == sorted(
        (f.severity for f in found), key=list(Severity).index
    )
    assert all(len(f.message) > 20 and len(f.hint) > 10 for f in found)


def test_an_altered_byte_of_the_same_size_is_found_only_by_reading(
    scene: SimulatedRepository,
) -> None:
    scene.store.put("m/2/model.onnx", b"GRAPH 2")
    assert check(scene, deep=False).findings == ()
    assert codes(check(scene)) == {"object-altered"}


def test_repair_restores_only_what_is_proven(scene: SimulatedRepository) -> None:
    """A manifest for other bytes, or a config for a version that is not whole, proves nothing."""
    scene.store.put("m/2/model.onnx", b"GRAPH 2")
    scene.store.delete(["m/2/manifest.json", "m/config.pbtxt", "m/3/data.bin"])
    before = scene.store.snapshot()
    report = check(scene, repair=True)
    assert report.repairs == ()
    assert scene.store.snapshot() == before
    assert codes(report) >= {"manifest-missing", "config-missing", "object-missing"}


def test_repair_waits_for_the_end_of_an_attempt(scene: SimulatedRepository) -> None:
    scene.publish(4, warmup=WARMUP)
    scene.journal.append(MODEL, action="promote", event="committing", version=4, previous=3)
    scene.store.delete(["m/2/manifest.json", "m/warmup/README"])
    scene.store.put("m/9/half", b"x")
    before = scene.store.snapshot()
    report = check(scene, repair=True)
    assert report.repairs == ()
    assert scene.store.snapshot() == before
    assert codes(report) >= {"open-attempt", "manifest-missing", "leftover"}


def test_leftovers_are_removed_and_proven_versions_never(scene: SimulatedRepository) -> None:
    scene.publish(5, warmup=WARMUP)
    scene.store.put("m/7/half", b"x")
    found = check(scene)
    assert {f.subject for f in found.findings} == {"m/5", "m/7"}
    assert found.ok, "leftovers do no harm"
    assert len(check(scene, repair=True).repairs) == 2
    assert scene.folders() == {1, 2, 3}
    assert check(scene).findings == ()


def test_a_killed_collection_is_finished(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_delete = scene.store.delete

    def delete_one(keys: list[str]) -> None:
        real_delete(keys[:1])
        raise Killed

    collector = Collector(
        repository=scene.repository,
        registry=scene.servers.registry,
        keep=1,
        lock_seconds=0,
        progress=silent,
    )
    with monkeypatch.context() as patch:
        patch.setattr(scene.store, "delete", delete_one)
        with pytest.raises(Killed):
            collector.collect((), dry_run=False)
    assert codes(check(scene)) == {"collection-unfinished"}
    assert [r.code for r in check(scene, repair=True).repairs] == ["collection-unfinished"]
    assert scene.folders() == {2, 3}
    assert check(scene).findings == ()


def test_a_collected_release_is_not_missed(scene: SimulatedRepository) -> None:
    Collector(
        repository=scene.repository,
        registry=scene.servers.registry,
        keep=1,
        lock_seconds=0,
        progress=silent,
    ).collect((), dry_run=False)
    assert scene.folders() == {2, 3}
    assert check(scene).findings == ()


def test_a_model_that_was_taken_away_is_not_missed(scene: SimulatedRepository) -> None:
    registry = SimulatedRegistry()
    for version in (1, 2, 3):
        registry.register(MODEL, version)
    take_away(
        replace(scene.servers, registry=cast("Any", registry)),
        MODEL,
        settings=Settings(lock_seconds=0),
        reason="",
        progress=silent,
    )
    assert check(scene).findings == ()
    assert check(scene, repair=True).repairs == ()


def test_releases_whose_files_are_gone_are_told_from_near_and_far(
    scene: SimulatedRepository,
) -> None:
    for version in (1, 2):
        scene.store.delete([k for k in keys_of(scene.store) if k.startswith(f"m/{version}/")])
    found = {f.subject: f for f in check(scene).findings}
    assert {f.code for f in found.values()} == {"release-gone"}
    assert found["m/2"].severity is Severity.ERROR, "the rollback target"
    assert found["m/1"].severity is Severity.WARNING


def test_a_config_that_names_files_that_are_gone_is_an_error(scene: SimulatedRepository) -> None:
    scene.store.delete([k for k in keys_of(scene.store) if k.startswith("m/3/")])
    before = scene.store.snapshot()
    assert codes(check(scene, repair=True)) == {"config-names-missing-version"}
    assert scene.store.snapshot() == before


@pytest.mark.parametrize("edit", [b"", b" # by hand"])
def test_a_config_of_another_release_is_a_decision_of_a_person(
    scene: SimulatedRepository, edit: bytes
) -> None:
    scene.store.put("m/config.pbtxt", scene.registered[2][0].config.encode() + edit)
    before = scene.store.snapshot()
    report = check(scene, repair=True)
    assert (codes(report), report.repairs) == ({"config-unexpected"}, ())
    assert scene.store.snapshot() == before


def test_a_record_whose_parts_do_not_fit_restores_nothing(scene: SimulatedRepository) -> None:
    key = "m/releases/3/release.json"
    data = scene.records.get(key) or b""
    scene.records.put(key, data.replace(b"max_batch_size: 4", b"max_batch_size: 8"))
    scene.store.delete(["m/config.pbtxt"])
    report = check(scene, repair=True)
    assert "record-altered" in codes(report)
    assert report.repairs == ()


@pytest.mark.parametrize("step", range(0, 25, 2))
def test_an_open_attempt_is_told_and_left_to_the_next_run(
    scene: SimulatedRepository, step: int
) -> None:
    scene.publish(4, warmup=WARMUP)
    scene.break_serving(4, step, Fault.KILL)
    attempt_is_open = scene.entries[-1].event == "committing"
    before = scene.store.snapshot()
    report = check(scene, repair=True)
    if attempt_is_open:
        assert codes(report) == {"open-attempt"}
        assert scene.store.snapshot() == before
    else:
        assert report.findings == ()
    if 4 in scene.folders():
        scene.serve(4)
        assert check(scene).findings == ()


def test_a_server_that_missed_the_commit_gets_another_one(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = len(scene.store.writes)
    real_ready = scene.triton.ready
    monkeypatch.setattr(
        scene.triton,
        "ready",
        lambda model: (
            real_ready(model) if "m/config.pbtxt" in scene.store.writes[writes:] else (2,)
        ),
    )
    found = check(scene)
    assert codes(found) == {"commit-not-seen"}
    assert "serves version 2 instead" in found.findings[0].message
    done = check(scene, repair=True)
    assert [r.code for r in done.repairs] == ["commit-not-seen"]
    assert done.findings == ()


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        ("UNAVAILABLE", "no memory", "load-failed"),
        ("UNAVAILABLE", "unloaded", "commit-not-seen"),
        ("LOADING", "", "loading"),
    ],
)
def test_what_a_server_says_is_told(
    scene: SimulatedRepository,
    monkeypatch: pytest.MonkeyPatch,
    state: str,
    reason: str,
    code: str,
) -> None:
    index = {MODEL: {3: VersionState(state=state, reason=reason)}}
    monkeypatch.setattr(scene.triton, "all_versions", lambda: index)
    report = check(scene)
    assert codes(report) == {code}
    assert report.ok == (code == "loading")
    monkeypatch.setattr(scene.triton, "is_ready", lambda _model, _version: False)
    again = check(scene, repair=True)
    assert [r.code for r in again.repairs] == (["commit-not-seen"] if reason == "unloaded" else [])
    assert codes(again) == {code}, "what did not help is not told as repaired"


def test_a_server_that_does_not_answer_is_told_and_nothing_is_removed(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.store.put("m/7/half", b"x")
    scene.store.delete(["m/warmup/README"])

    def down() -> None:
        raise UnavailableError("no answer")

    monkeypatch.setattr(scene.triton, "require_live", down)
    report = check(scene, repair=True)
    assert codes(report) == {"server-silent", "leftover"}
    assert [r.code for r in report.repairs] == ["warmup-marker-missing"]


def test_models_of_other_repositories_and_versions_beside_the_committed_one_are_told(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = VersionState(state="READY", reason="")
    monkeypatch.setattr(
        scene.triton, "all_versions", lambda: {MODEL: {3: ready, 9: ready}, "other": {1: ready}}
    )
    assert codes(check(scene)) == {"serves-another", "served-from-elsewhere"}


def test_a_withdrawn_model_that_is_still_served_is_removed_whole(
    world: World, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "time", world)
    scene = SimulatedRepository(world, store)
    scene.publish(1, works=False)
    with pytest.raises(ConfirmationError):
        scene.serve(1)
    scene.publish(1)  # as if killed between the two halves of the withdrawal
    ready = {MODEL: {1: VersionState(state="READY", reason="")}}
    monkeypatch.setattr(scene.triton, "all_versions", lambda: ready if scene.folders() else {})
    assert "withdrawn-but-served" in codes(check(scene))
    done = check(scene, repair=True)
    assert [r.code for r in done.repairs] == ["withdrawn-but-served"]
    assert done.findings == ()
    assert set(scene.store.snapshot()) == {".tritonpipe"}


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.KILL, Fault.INTERRUPT])
@pytest.mark.parametrize("step", range(0, 75, 7))
def test_a_repair_that_breaks_harms_nothing_and_the_next_one_finishes(
    scene: SimulatedRepository, step: int, fault: Fault
) -> None:
    scene.store.delete(["m/config.pbtxt", "m/2/manifest.json", "m/warmup/README"])
    scene.store.put("m/7/half", b"x")
    scene.world.break_at(step, fault)
    with contextlib.suppress(TritonpipeError, KeyboardInterrupt, Killed):
        check(scene, repair=True, deep=False)
    scene.world.break_at(0, None)
    assert scene.served in {None, 3}
    check(scene, repair=True)
    assert check(scene).findings == ()
    assert (scene.served, scene.folders()) == (3, {1, 2, 3})


def test_a_model_that_is_being_published_is_not_checked(scene: SimulatedRepository) -> None:
    with scene.locks.hold(MODEL, seconds=0, tell=lambda _text: None):
        report = check(scene, repair=True)
    assert (codes(report), report.ok) == ({"not-checked"}, False)


def publish_ensemble(scene: SimulatedRepository) -> Release:
    """An ensemble with ``m`` as its only step: its version is a manifest and nothing else."""
    config = (
        'name: "both" version_policy { specific { versions: 1 } } '
        'ensemble_scheduling { step { model_name: "m" model_version: -1 } }'
    )
    template, golden = scene.registered[1]
    sha256 = hashlib.sha256(config.encode()).hexdigest()
    manifest = replace(template.manifest, model="both", config_sha256=sha256, files=())
    release = replace(template, manifest=manifest, config=config)
    scene.journal.keep(release, golden)
    scene.store.put("both/1/manifest.json", manifest.to_bytes())
    scene.store.put("both/config.pbtxt", config.encode())
    for event in ("committing", "confirmed"):
        scene.journal.append("both", action="publish", event=event, version=1, previous=None)
    return release


def test_the_manifest_of_an_ensemble_is_all_it_has_and_is_put_back(
    scene: SimulatedRepository,
) -> None:
    publish_ensemble(scene)
    assert check(scene).findings == ()
    before = scene.store.snapshot()
    scene.store.delete(["both/1/manifest.json"])
    assert codes(check(scene)) == {"manifest-missing"}
    assert check(scene, repair=True).findings == ()
    assert scene.store.snapshot() == before


def test_an_ensemble_that_keeps_to_its_steps_is_left_so_while_one_of_them_is_in_an_attempt(
    scene: SimulatedRepository,
) -> None:
    release = publish_ensemble(scene)
    scene.publish(4, warmup=WARMUP)
    held = release.config.replace("model_version: -1", "model_version: 3")
    scene.journal.append(MODEL, action="publish", event="committing", version=4, previous=3)
    scene.store.put("both/config.pbtxt", held.encode())
    assert codes(check(scene, repair=True)) == {"open-attempt"}
    assert scene.store.get("both/config.pbtxt") == held.encode()
    scene.journal.append(MODEL, action="publish", event="failed", version=4, previous=3)
    assert codes(check(scene)) == {"config-altered", "leftover"}
    assert check(scene, repair=True).findings == ()
    assert scene.store.get("both/config.pbtxt") == release.config.encode()


def test_a_key_that_forbids_listings_is_told_and_recorded_models_are_still_checked(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.store.delete(["m/config.pbtxt"])
    real_list = scene.store.list_folder

    def list_folder(folder: str) -> list[StoredObject]:
        if not folder:
            raise ConflictError('cannot list: Path "//x" contained empty path segment')
        return real_list(folder)

    monkeypatch.setattr(scene.store, "list_folder", list_folder)
    assert codes(check(scene)) == {"unlistable", "config-missing"}
    monkeypatch.setattr(scene.store, "list_folder", lambda _folder: list_folder(""))
    assert codes(check(scene)) == {"unlistable", "not-checked"}


def test_without_a_lock_that_holds_it_reads_and_does_not_repair(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_lock(*_arguments: object, **_options: object) -> None:
        raise SettingsError("the store ignores conditional writes")

    monkeypatch.setattr(scene.locks, "hold", no_lock)
    scene.store.delete(["m/2/manifest.json"])
    assert codes(check(scene)) == {"manifest-missing"}
    with pytest.raises(SettingsError):
        check(scene, repair=True)


def test_an_unknown_model_is_an_error(scene: SimulatedRepository) -> None:
    with pytest.raises(RequestError, match="neither repository nor records know 'other'"):
        check(scene, "other")
