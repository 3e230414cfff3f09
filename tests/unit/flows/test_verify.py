"""Signed publication and its verification on a simulated store; the library is left out.

What the signature itself guarantees is in ``tests/unit/signing``.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.artifacts import Release, RepositoryEntry
from pipeline.errors import ConflictError, RefusedError, RequestError
from pipeline.flows import verify
from pipeline.flows.commit import commit
from pipeline.flows.journal import Journal
from pipeline.flows.publish import damage, plan_publication, read_state, upload
from pipeline.flows.release import refuse_unsigned
from pipeline.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    Lineage,
    Manifest,
    digest_folder,
    manifest_from_bytes,
)
from pipeline.samples import Samples
from pipeline.settings import Settings
from pipeline.testing.simulated import SimulatedLocks, SimulatedStore, World

KEY = Path("key.pub")


class DeafStore(SimulatedStore):
    """Keeps another signature than it was sent."""

    def put(self, key: str, data: bytes | Path) -> None:
        super().put(key, b"nonsense" if key.endswith(SIGNATURE_NAME) else data)


def entry_of(folder: Path, version: int, *, signature: bytes | None) -> RepositoryEntry:
    folder = folder / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"graph")
    config = f'name: "m" version_policy {{ specific {{ versions: {version} }} }}'
    manifest = Manifest(
        model="m",
        version=version,
        config_sha256=hashlib.sha256(config.encode()).hexdigest(),
        files=digest_folder(folder),
        lineage=Lineage(
            registered_model="m",
            registered_version=version,
            run_id=None,
            source="s",
            source_digest="d",
            flavor="onnx",
        ),
        tools={},
    )
    if signature is not None:
        (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
        (folder / SIGNATURE_NAME).write_bytes(signature)
    return RepositoryEntry(folder=folder, manifest=manifest, config=config)


def publish(store: SimulatedStore, entry: RepositoryEntry) -> None:
    plan = plan_publication(store, read_state(store, "m"), entry)
    upload(store, entry, plan, held=SimulatedLocks())


def serve(store: SimulatedStore, entry: RepositoryEntry) -> None:
    commit(store, read_state(store, "m"), entry.config, held=SimulatedLocks())


@pytest.fixture
def verified(
    store: SimulatedStore, world: World, monkeypatch: pytest.MonkeyPatch
) -> tuple[SimulatedStore, SimulatedStore]:
    """The stores that a verification sees; whatever is in a folder counts as signed."""
    records = SimulatedStore(world)
    monkeypatch.setattr(verify, "open_stores", lambda _settings: (store, records))

    def as_it_says(folder: Path, trust: object) -> Manifest:
        assert trust == KEY
        return manifest_from_bytes((folder / MANIFEST_NAME).read_bytes())

    monkeypatch.setattr(verify, "verify_folder", as_it_says)
    return store, records


def test_the_signature_follows_the_manifest(store: SimulatedStore, tmp_path: Path) -> None:
    entry = entry_of(tmp_path, 1, signature=b"s")
    assert plan_publication(store, read_state(store, "m"), entry).signed
    publish(store, entry)
    folder = [key for key in store.writes if key.startswith("m/1/")]
    assert folder == ["m/1/model.onnx", f"m/1/{MANIFEST_NAME}", f"m/1/{SIGNATURE_NAME}"]
    assert store.get(f"m/1/{SIGNATURE_NAME}") == b"s"
    assert damage(store, entry.manifest) == []


def test_the_signature_of_an_attempt_that_never_committed_does_not_stay(
    store: SimulatedStore, tmp_path: Path
) -> None:
    publish(store, entry_of(tmp_path / "first", 1, signature=b"s"))
    publish(store, entry_of(tmp_path / "second", 1, signature=None))
    assert store.get(f"m/1/{SIGNATURE_NAME}") is None


def test_a_served_version_is_published_again_without_a_write(
    store: SimulatedStore, tmp_path: Path
) -> None:
    entry = entry_of(tmp_path, 1, signature=b"s")
    publish(store, entry)
    serve(store, entry)
    store.writes.clear()
    publish(store, entry)
    assert store.writes == []


def test_a_signature_that_the_store_did_not_keep_is_found(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="not the signature that was sent"):
        publish(DeafStore(world), entry_of(tmp_path, 1, signature=b"s"))


def test_only_a_signed_or_served_version_is_taken_as_it_is(
    store: SimulatedStore, tmp_path: Path
) -> None:
    served = entry_of(tmp_path, 1, signature=None)
    publish(store, served)
    serve(store, served)
    publish(store, entry_of(tmp_path, 2, signature=b"s"))
    publish(store, entry_of(tmp_path, 3, signature=None))
    state = read_state(store, "m")
    refuse_unsigned(state, 1)
    refuse_unsigned(state, 2)
    with pytest.raises(ConflictError, match="m/3 was published without a signature"):
        refuse_unsigned(state, 3)


def test_the_served_version_is_verified_by_default(
    verified: tuple[SimulatedStore, SimulatedStore], tmp_path: Path
) -> None:
    store, _records = verified
    for version in (1, 2):
        entry = entry_of(tmp_path, version, signature=b"s")
        publish(store, entry)
    serve(store, entry)
    found = verify.verify_release("m", None, Settings(), KEY)
    assert (found.version, found.served, found.files) == (2, True, 3)
    assert not verify.verify_release("m", 1, Settings(), KEY).served


@pytest.mark.parametrize("name", ["model.onnx/inside", "../1/x", "a b", "/etc/x", "a//b"])
def test_a_key_that_is_no_file_of_a_version_is_refused_and_not_written(
    name: str, verified: tuple[SimulatedStore, SimulatedStore], tmp_path: Path
) -> None:
    store, _records = verified
    publish(store, entry_of(tmp_path, 1, signature=b"s"))
    state = read_state(store, "m")
    odd = replace(next(iter(state.objects.values())), key=f"m/1/{name}")
    state.objects[odd.key] = odd
    with pytest.raises(RefusedError):
        verify._download(store, state, 1, tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_name_that_leads_out_of_the_temporary_folder_is_no_model(
    verified: tuple[SimulatedStore, SimulatedStore], world: World
) -> None:
    with pytest.raises(RequestError):
        verify.verify_release("..", 1, Settings(), KEY)
    assert world.steps == 0


def test_a_recorded_config_that_was_not_signed_is_refused(
    verified: tuple[SimulatedStore, SimulatedStore], tmp_path: Path
) -> None:
    store, records = verified
    entry = entry_of(tmp_path, 1, signature=b"s")
    publish(store, entry)
    release = Release(
        manifest=entry.manifest,
        config=entry.config + " ",
        relative_tolerance=0.1,
        absolute_tolerance=0.1,
    )
    Journal(records).keep(release, Samples(inputs={}, outputs={}))
    with pytest.raises(RefusedError, match="in the record"):
        verify.verify_release("m", 1, Settings(), KEY)
