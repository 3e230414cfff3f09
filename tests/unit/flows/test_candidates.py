"""Where a hand-written release says that it comes from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from pipeline import __version__
from pipeline.flows.candidates import candidate_from_folder
from pipeline.manifest import differences, manifest_from_bytes

CONFIG = """backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: 1 } output { name: "y" data_type: TYPE_FP32 dims: 1 }
"""
MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout" / "model_repository" / "step"
    (folder / "1" / "data").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "1" / "model.py").write_text(MODEL)
    (folder / "1" / "data" / "words.txt").write_text("a\n")
    (folder / "1" / ".gitkeep").touch()
    tensor = {"datatype": "FP32", "shape": [1], "data": [1]}
    golden = {"inputs": [{"name": "x", **tensor}], "outputs": [{"name": "y", **tensor}]}
    (folder / "golden.json").write_text(json.dumps(golden))
    return folder


def source(entry: Path, work: Path) -> str:
    return candidate_from_folder(entry, work).release.manifest.lineage.source


def test_a_release_is_made_of_copies_and_old_readers_can_read_it(
    entry: Path, tmp_path: Path
) -> None:
    candidate = candidate_from_folder(entry, tmp_path / "work")
    assert candidate.entry is not None
    manifest = candidate.release.manifest
    assert [f.path for f in manifest.files] == ["data/words.txt", "model.py"]
    assert differences(candidate.entry.folder, manifest) == []
    assert entry not in candidate.entry.folder.parents
    assert manifest_from_bytes(manifest.to_bytes()) == manifest
    assert manifest.lineage.is_by_hand
    assert (manifest.lineage.registered_version, manifest.lineage.run_id) == (1, None)
    assert manifest.tools == {"tritonpipe": __version__}


def test_a_clean_checkout_is_named_with_its_commit(entry: Path, tmp_path: Path) -> None:
    assert source(entry, tmp_path / "no checkout") == "step"
    root = tmp_path / "checkout"
    git(root, "init", "-q")
    assert source(entry, tmp_path / "no commit") == "step"
    (root / ".gitignore").write_text("*.bin\n")
    git(root, "add", "--all")
    git(root, "commit", "-q", "-m", "first")
    commit = git(root, "rev-parse", "HEAD")
    (root / "elsewhere.txt").touch()
    assert source(entry, tmp_path / "clean") == f"model_repository/step@{commit}"
    (entry / "1" / "weights.bin").touch()
    assert source(entry, tmp_path / "ignored file") == "step"
    (entry / "1" / "weights.bin").unlink()
    (entry / "1" / "model.py").write_text(MODEL + "\n")
    assert source(entry, tmp_path / "changed") == "step"


def test_the_digest_of_the_source_is_that_of_its_files(entry: Path, tmp_path: Path) -> None:
    before = candidate_from_folder(entry, tmp_path / "before").release.manifest
    (entry / "README.md").write_text("words for people")
    same = candidate_from_folder(entry, tmp_path / "same").release.manifest
    assert same == before
    (entry / "1" / "data" / "words.txt").write_text("b\n")
    other = candidate_from_folder(entry, tmp_path / "other").release.manifest
    assert other.lineage.source_digest != before.lineage.source_digest
