"""A fetched model is refused, with the reason, before anything of it is loaded."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import ModelError
from pipeline.registries import archives, fetched
from pipeline.registries.fetched import flavors_of_fetched

MLMODEL = """
flavors:
  python_function:
    env: {conda: conda.yaml, virtualenv: python_env.yaml}
    loader_module: mlflow.sklearn
    model_path: model.pkl
  sklearn: {code: null, pickled_model: model.pkl, serialization_format: cloudpickle}
saved_input_example_info: {artifact_path: input_example.json, type: ndarray}
signature: {inputs: '[{"type": "double"}]'}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "model.pkl").write_bytes(b"\x80")
    (tmp_path / "outside").write_text("secret")
    return folder


@pytest.fixture
def refused(folder: Path) -> Callable[[], str]:
    def run() -> str:
        with pytest.raises(ModelError) as caught:
            flavors_of_fetched(folder, "iris/3")
        assert "iris/3" in caught.value.message
        assert caught.value.hint
        return caught.value.message

    return run


def test_a_sane_model_has_its_flavors_in_order(folder: Path) -> None:
    assert flavors_of_fetched(folder, "iris/3") == ("python_function", "sklearn")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no mapping but NoneType"),
        (b"- a\n- b", "no mapping but list"),
        (b"just text", "no mapping but str"),
        (b"flavors: [onnx]", "names no flavors"),
        (b"flavors: {}", "names no flavors"),
        (b"run_id: abc", "names no flavors"),
        (b"flavors: {onnx: model.onnx}", "flavor 'onnx' has no options"),
        (b"flavors: {1: {}}", "flavor 1 has no options"),
        (b"flavors: {a: [}", "missing or damaged"),
        (b"\xff\xfe\x00", "missing or damaged"),
        (b"a: 2026-99-99", "missing or damaged"),
        (b"flavors: {onnx: !!python/object/apply:os.system [id]}", "missing or damaged"),
        (b"a: &a [*a]", "stands for nothing, or for itself"),
        (b"a: *b", "stands for nothing"),
        (b"[" * 10_000, "nested more than"),
        (b"a: " + b"x" * fetched.MOST_MLMODEL_BYTES, "bytes, at most"),
    ],
)
def test_a_damaged_mlmodel(
    folder: Path, refused: Callable[[], str], content: bytes, words: str
) -> None:
    (folder / "MLmodel").write_bytes(content)
    message = refused()
    assert "MLmodel" in message
    assert words in message


def test_a_missing_mlmodel(folder: Path, refused: Callable[[], str]) -> None:
    (folder / "MLmodel").unlink()
    assert "it is missing" in refused()


def bomb(depth: int, merge: str = "") -> str:
    lines = ["a0: &a0 {x: 1}" if merge else "a0: &a0 [x, x]"]
    for level in range(1, depth):
        aliases = ", ".join([f"*a{level - 1}"] * 9)
        lines.append(
            f"a{level}: &a{level} " + (f"{{<<: [{aliases}]}}" if merge else f"[{aliases}]")
        )
    return "\n".join(lines)


@pytest.mark.parametrize("merge", ["", "<<"])
def test_aliases_of_aliases_are_counted_before_anything_is_built(
    folder: Path, refused: Callable[[], str], merge: str
) -> None:
    (folder / "MLmodel").write_text(bomb(12, merge))
    assert "more than 400000 values" in refused()


def test_a_few_aliases_as_mlflow_writes_them_are_fine(folder: Path) -> None:
    shared = ["a", "b"]
    document = {"flavors": {"onnx": {"x": shared, "y": shared, "data": "model.onnx"}}}
    text = yaml.safe_dump(document)
    assert "*id001" in text
    (folder / "MLmodel").write_text(text)
    assert flavors_of_fetched(folder, "iris/3") == ("onnx",)


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "data/../../outside", "link/x"])
@pytest.mark.parametrize("key", ["data", "model_data", "model_path", "code", "pickled_model"])
def test_a_path_that_leaves_the_folder(
    folder: Path, refused: Callable[[], str], key: str, path: str
) -> None:
    # MLflow joins them to the folder; a link that stays inside may still lead through another.
    (folder / "data").mkdir()
    (folder / "link").symlink_to("data/inner")
    (folder / "data" / "inner").symlink_to("../../model/data")
    (folder / "data" / "x").symlink_to("../model.pkl")
    flavors = {"theirs": {"deep": [{key: path}]}}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    if path == "link/x":
        assert flavors_of_fetched(folder, "iris/3") == ("theirs",)
    else:
        assert f"{key} in the MLmodel file of iris/3 is {path!r}, which is outside" in refused()


def test_an_input_example_outside_of_the_folder(folder: Path, refused: Callable[[], str]) -> None:
    document = yaml.safe_load(MLMODEL)
    document["saved_input_example_info"]["artifact_path"] = "../outside"
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    assert "artifact_path" in refused()


@pytest.mark.parametrize("target", ["/etc", "../outside", "../nowhere"])
def test_a_link_that_leaves_the_folder(
    folder: Path, refused: Callable[[], str], target: str
) -> None:
    (folder / "weights").symlink_to(target)
    assert "weights of iris/3 is a link out of the model's folder" in refused()


def test_a_pipe_would_be_waited_for_for_ever(folder: Path, refused: Callable[[], str]) -> None:
    os.mkfifo(folder / "pipe")
    assert "pipe of iris/3 is neither file nor folder" in refused()


@pytest.mark.parametrize("name", [b"new\nline", b"\xff"])
def test_names_that_are_no_text(folder: Path, refused: Callable[[], str], name: bytes) -> None:
    Path(os.fsdecode(bytes(folder) + b"/" + name)).touch()
    assert "whose name is no text" in refused()


def test_too_many_files(
    folder: Path, refused: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetched, "MOST_FILES", 5)
    for number in range(6):
        (folder / str(number)).touch()
    assert "more than 5 files" in refused()


def write_archive(file: Path, entries: dict[str, bytes], **options: Any) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("name", ["data/model.keras", "model.skops", "model.pth", "x.zip"])
def test_an_archive_that_unpacks_to_far_more_than_it_is(
    folder: Path, refused: Callable[[], str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 2**20)
    (folder / "data").mkdir()
    write_archive(folder / name, {"weights": bytes(2**21)})
    message = refused()
    assert name in message
    assert "would unpack to 0.00195 GiB" in message


def test_entries_that_share_their_bytes_are_counted_each(
    folder: Path, refused: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each entry is harmless: only together, over the size of the file, they are not."""
    monkeypatch.setattr(archives, "FREE_BYTES", 2**20)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", os.urandom(2**14) * 4)
        first = archive.infolist()[0]
        archive.filelist += [first] * 2_000
    (folder / "model.pt2").write_bytes(buffer.getvalue())
    assert "would unpack to" in refused()


def test_weights_that_shrink_well_and_a_large_size_alone_are_fine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 2**20)
    write_archive(folder / "model.pt2", {"weights": os.urandom(2**21), "zeros": bytes(2**21)})
    (folder / "zeros.bin").write_bytes(bytes(2**21))
    assert flavors_of_fetched(folder, "iris/3")


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "/etc/x", "..\\x"])
def test_an_archive_with_a_name_that_leaves_it(
    folder: Path, refused: Callable[[], str], name: str
) -> None:
    write_archive(folder / "model.skops", {name: b"x"})
    assert "which is outside of it" in refused()


def test_an_archive_with_a_link(folder: Path, refused: Callable[[], str]) -> None:
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        link = zipfile.ZipInfo("config.json")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert "with the link 'config.json'" in refused()


def test_a_directory_that_would_fill_the_memory_is_not_read(
    folder: Path, refused: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_MOST_DIRECTORY_BYTES", 4096)
    write_archive(folder / "model.pt2", {f"{number:040}": b"" for number in range(100)})
    assert "directory that is too large" in refused()


def test_too_many_entries(
    folder: Path, refused: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MOST_ENTRIES", 3)
    write_archive(folder / "model.pt2", {str(number): b"" for number in range(4)})
    assert "an archive of 4 files" in refused()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps([1, 2])])
def test_what_should_be_an_archive_and_is_none(
    folder: Path, refused: Callable[[], str], content: bytes
) -> None:
    (folder / "model.pt2").write_bytes(content)
    assert "model.pt2 of iris/3 is no readable archive" in refused()


def test_a_truncated_archive(folder: Path, refused: Callable[[], str]) -> None:
    write_archive(folder / "model.keras", {"weights": os.urandom(10_000)})
    data = (folder / "model.keras").read_bytes()
    (folder / "model.keras").write_bytes(data[:-30])
    assert "is no readable archive" in refused()


def test_the_directory_of_a_large_archive_is_found(
    folder: Path, refused: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More entries than the small form of an archive can count."""
    with zipfile.ZipFile(folder / "model.pt2", "w") as archive:
        archive.writestr("a", b"")
        archive.filelist += archive.filelist * 70_000
    assert flavors_of_fetched(folder, "iris/3")
    monkeypatch.setattr(archives, "_MOST_DIRECTORY_BYTES", 70_000)
    assert "directory that is too large" in refused()
