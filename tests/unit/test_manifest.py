from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.manifest import (
    MANIFEST_NAME,
    InvalidManifestError,
    Lineage,
    Manifest,
    differences,
    digest_folder,
    digest_of_files,
    manifest_from_bytes,
)

LINEAGE = Lineage(
    registered_model="fraud",
    registered_version=3,
    run_id="r1",
    source="models:/m-1",
    source_digest="sha256:0",
    flavor="sklearn",
)


@pytest.fixture
def version_folder(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "warmup").mkdir()
    (tmp_path / "warmup" / "0.bin").write_bytes(b"\0" * 8)
    (tmp_path / "empty.data").touch()
    return tmp_path


def manifest_of(folder: Path) -> Manifest:
    return Manifest(
        model="fraud",
        version=3,
        config_sha256="c",
        files=digest_folder(folder),
        lineage=LINEAGE,
        tools={"onnx": "1", "numpy": "2"},
    )


def test_round_trip_is_the_identity(version_folder: Path) -> None:
    manifest = manifest_of(version_folder)
    assert manifest_from_bytes(manifest.to_bytes()) == manifest


def test_same_content_gives_the_same_digest_whatever_the_order(version_folder: Path) -> None:
    manifest = manifest_of(version_folder)
    shuffled = replace(manifest, files=manifest.files[::-1], tools={"numpy": "2", "onnx": "1"})
    assert shuffled.digest == manifest.digest


def test_every_field_changes_the_digest(version_folder: Path) -> None:
    manifest = manifest_of(version_folder)
    variants = [
        replace(manifest, model="other"),
        replace(manifest, version=4),
        replace(manifest, config_sha256="d"),
        replace(manifest, files=manifest.files[1:]),
        replace(manifest, lineage=replace(LINEAGE, run_id=None)),
        replace(manifest, tools={}),
    ]
    assert len({m.digest for m in [manifest, *variants]}) == len(variants) + 1


def test_an_intact_folder_has_no_differences(version_folder: Path) -> None:
    manifest = manifest_of(version_folder)
    (version_folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    assert differences(version_folder, manifest) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.onnx").write_bytes(b"Graph"), "model.onnx has SHA-256"),
        (lambda f: (f / "model.onnx").write_bytes(b"grap"), "model.onnx has 4 bytes"),
        (lambda f: (f / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda f: (f / "extra.so").write_bytes(b"x"), "extra.so is not in the manifest"),
        (lambda f: (f / "empty.data").unlink(), "empty.data is missing"),
    ],
)
def test_every_damage_is_found(version_folder: Path, damage: object, message: str) -> None:
    manifest = manifest_of(version_folder)
    damage(version_folder)  # type: ignore[operator]
    [problem] = differences(version_folder, manifest)
    assert message in problem


def test_moving_a_folder_keeps_its_digest(version_folder: Path) -> None:
    before = digest_of_files(digest_folder(version_folder))
    moved = version_folder.rename(version_folder.parent / "moved")
    assert digest_of_files(digest_folder(moved)) == before


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", json.dumps({"schema_version": 999}).encode()]
)
def test_what_is_not_a_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidManifestError):
        manifest_from_bytes(data)


def test_manifests_of_every_released_schema_stay_readable() -> None:
    museum = sorted((Path(__file__).parent / "goldens").glob("manifest-schema-*.json"))
    assert museum
    for path in museum:
        assert manifest_from_bytes(path.read_bytes()).model == "fraud"
