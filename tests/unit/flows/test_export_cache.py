"""Laws of the cache: what comes out is what went in, or nothing does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline
from pipeline.artifacts import Export, ModelVersion, OnnxModel, Probe, SourceModel
from pipeline.flows import export_cache
from pipeline.flows.export_cache import ExportCache, export_key, tools_fingerprint
from pipeline.manifest import digest_folder, digest_of_files

Make = Callable[[Path], Export]


def source_of(digest: str, tmp_path: Path, *, version: int = 1) -> SourceModel:
    return SourceModel(
        version=ModelVersion(name="fraud", version=version, run_id=None, source="", tags={}),
        path=tmp_path,
        flavors=("onnx",),
        digest=digest,
    )


class Exporter:
    """Counts how often it is asked, and writes 100 bytes of graph and some samples."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, destination: Path) -> Export:
        self.calls += 1
        folder = destination / "onnx"
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"g" * 100)
        for name in ("samples.npz", "probe.npz"):
            (destination / name).write_bytes(name.encode())
        onnx = OnnxModel(
            path=folder,
            opset=18,
            inputs=(),
            outputs=(),
            digest=digest_of_files(digest_folder(folder)),
            source_digest="d",
            flavor="onnx",
            tools={"onnx": "1"},
        )
        probe = Probe(samples=destination / "probe.npz", origin="made up")
        return Export(
            onnx=onnx,
            samples=destination / "samples.npz",
            samples_origin="logged",
            probes=(probe,),
        )


class Scene:
    def __init__(self, tmp_path: Path, *, most_bytes: int = 10_000) -> None:
        self.tmp_path = tmp_path
        self.cache = ExportCache(tmp_path / "cache", most_bytes=most_bytes)
        self.exporter = Exporter()
        self._runs = 0

    def export(self, digest: str = "d", *, version: int = 1) -> tuple[Export, bool, Path]:
        self._runs += 1
        destination = self.tmp_path / f"run-{self._runs}"
        destination.mkdir()
        source = source_of(digest, self.tmp_path, version=version)
        export, was_there = self.cache.export(
            source, "onnx", destination, lambda: self.exporter(destination)
        )
        return export, was_there, destination


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_exporting_twice_does_the_work_once_and_gives_the_same(scene: Scene) -> None:
    first, was_there, first_folder = scene.export()
    assert not was_there
    again, was_there, folder = scene.export(version=2)
    assert was_there
    assert scene.exporter.calls == 1
    assert digest_folder(folder) == digest_folder(first_folder)
    assert all(path.is_relative_to(folder) for path in again.files)
    assert again.onnx.digest == first.onnx.digest == digest_of_files(digest_folder(again.onnx.path))
    assert again.samples_origin == "logged"


def test_what_decides_the_bytes_is_in_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of("d", tmp_path)
    names = {
        export_key(source, "onnx"),
        export_key(source_of("e", tmp_path), "onnx"),
        export_key(source, "pytorch"),
    }
    monkeypatch.setattr(export_cache, "installed_distributions", lambda: ["torch==1"])
    names.add(export_key(source, "onnx"))
    monkeypatch.setattr(export_cache, "_own_code", lambda: "edited")
    names.add(export_key(source, "onnx"))
    assert len(names) == 5
    assert export_key(source, "onnx") == export_key(source_of("d", tmp_path, version=9), "onnx")


def test_what_is_installed_or_edited_meanwhile_is_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watcher runs for months, and tries again what was refused when its tools have changed."""
    package, site = tmp_path / "pipeline", tmp_path / "site"
    (package / "exporters").mkdir(parents=True)
    site.mkdir()
    module = package / "exporters" / "torch.py"
    module.write_text("1")
    monkeypatch.setattr(pipeline, "__file__", str(package / "__init__.py"))
    monkeypatch.syspath_prepend(site)
    names = [tools_fingerprint()]
    (site / "torch-2.9.0.dist-info").mkdir()
    names.append(tools_fingerprint())
    module.write_text("2")
    os.utime(module, (1.0, 1.0))
    names.append(tools_fingerprint())
    assert len(set(names)) == 3
    assert tools_fingerprint() == names[-1]


@pytest.mark.parametrize("change", ["altered", "missing", "added", "no description", "nonsense"])
def test_an_entry_that_is_not_whole_is_made_again(scene: Scene, change: str) -> None:
    scene.export()
    (entry,) = (scene.tmp_path / "cache").iterdir()
    graph = entry / "files" / "onnx" / "model.onnx"
    graph.chmod(0o600)
    if change == "altered":
        graph.write_bytes(b"G" * 100)
    elif change == "missing":
        graph.unlink()
    elif change == "added":
        (entry / "files" / "onnx" / "more").write_bytes(b"x")
    elif change == "no description":
        (entry / "entry.json").unlink()
    else:
        (entry / "entry.json").write_text('{"digest": 1}')
    export, was_there, folder = scene.export()
    assert not was_there
    assert export.onnx.file.read_bytes() == b"g" * 100
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == [
        "model.onnx",
        "probe.npz",
        "samples.npz",
    ]
    assert scene.export()[1], "and is whole then"


def test_a_failed_export_is_not_kept(scene: Scene) -> None:
    def fail(_destination: Path) -> Export:
        raise RuntimeError("the model has no samples")

    good, scene.exporter = scene.exporter, fail  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="no samples"):
        scene.export()
    scene.exporter = good
    assert not scene.export()[1]


def test_the_one_not_used_for_longest_makes_room(tmp_path: Path) -> None:
    scene = Scene(tmp_path, most_bytes=300)
    for digest in ("a", "b"):
        scene.export(digest)
    _age(scene.cache, tmp_path)
    assert scene.export("a")[1]
    scene.export("c")
    assert [entry.size for entry in scene.cache.entries()] == [120, 120]
    assert scene.export("a")[1]
    assert not scene.export("b")[1]


def test_pruning_removes_no_more_than_is_needed(scene: Scene) -> None:
    for digest in ("a", "b", "c"):
        scene.export(digest)
    assert len(scene.cache.prune(250)) == 1
    assert len(scene.cache.prune(250)) == 0
    assert len(scene.cache.prune(0)) == 2
    assert scene.cache.entries() == []


def test_a_folder_that_cannot_be_used_costs_time_and_nothing_else(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (tmp_path / "cache").write_text("a file, not a folder")
    for _ in range(2):
        export, was_there, _folder = scene.export()
        assert not was_there
        assert export.onnx.file.is_file()


def test_what_is_taken_can_be_replaced_without_changing_the_cache(scene: Scene) -> None:
    scene.export()
    export, _, _ = scene.export()
    export.onnx.file.unlink()
    export.onnx.file.write_bytes(b"optimised")
    again, was_there, _ = scene.export()
    assert was_there
    assert again.onnx.file.read_bytes() == b"g" * 100


def _age(cache: ExportCache, tmp_path: Path) -> None:
    import os

    for number, entry in enumerate(cache.entries()):
        os.utime(tmp_path / "cache" / entry.key / "entry.json", (1000 - number, 1000 - number))
