from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ModelError, RequestError, TritonpipeError
from pipeline.handwritten import read_entry
from pipeline.model_config import config_from_text, served_versions

EXAMPLES = Path(__file__).parents[2] / "model_repository"
PYTHON = """
backend: "python"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
"""
ENSEMBLE = PYTHON.replace('backend: "python"', 'platform: "ensemble"') + (
    'ensemble_scheduling { step { model_name: "a" model_version: -1 '
    'input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } }'
)
MODEL = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


def golden() -> dict[str, list[dict[str, object]]]:
    common = {"datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    return {"inputs": [{"name": "x", **common}], "outputs": [{"name": "y", **common}]}


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """A valid Python step."""
    folder = tmp_path / "step"
    (folder / "3").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(PYTHON)
    (folder / "3" / "model.py").write_text(MODEL)
    (folder / "golden.json").write_text(json.dumps(golden()))
    return folder


def make_ensemble(entry: Path) -> None:
    (entry / "config.pbtxt").write_text(ENSEMBLE)
    (entry / "3" / "model.py").unlink()
    (entry / "3" / ".gitkeep").touch()


def refusal(entry: Path) -> TritonpipeError:
    with pytest.raises((RequestError, ModelError)) as caught:
        read_entry(entry)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    "folder", [p.parent for p in EXAMPLES.glob("*/config.pbtxt")], ids=lambda path: path.name
)
def test_the_examples_are_valid(folder: Path) -> None:
    assert read_entry(folder).name == folder.name


def test_an_entry_is_read_with_all_that_is_published(entry: Path) -> None:
    (entry / "3" / "data").mkdir()
    (entry / "3" / "data" / "words.txt").touch()
    (entry / "3" / ".gitkeep").touch()
    (entry / "README.md").touch()
    (entry / ".gitkeep").touch()
    found = read_entry(entry)
    assert (found.name, found.version) == ("step", 3)
    assert found.files == ("data/words.txt", "model.py")
    assert found.golden.inputs["x"].tolist() == [[1, 2]]
    assert served_versions(found.config) == (3,)
    assert config_from_text(found.config).name == "step"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "# a comment\n" + text.replace("\n", "\n\n"),
        lambda text: 'name: "step"\n' + text,
        lambda text: text + "version_policy: { specific { versions: 3 } }",
        lambda text: text.replace("{ name", "{ # here\n name").replace("[ 2 ]", "2"),
    ],
)
def test_the_same_config_gives_the_same_text(entry: Path, change: Callable[[str], str]) -> None:
    expected = read_entry(entry).config
    (entry / "config.pbtxt").write_text(change(PYTHON))
    assert read_entry(entry).config == expected


def test_an_ensemble_has_no_files(entry: Path) -> None:
    make_ensemble(entry)
    assert read_entry(entry).files == ()
    (entry / "3" / "notes.txt").touch()
    assert "an ensemble has no files, found 'notes.txt'" in refusal(entry).message


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("notes.txt", "'notes.txt', which is no part of an entry"),
        ("config", "'config', which"),
        ("03/model.py", "'03', which"),
        ("3.tmp/model.py", "'3.tmp', which"),
        ("warmup/x", "'warmup', which"),
        ("2/model.py", "exactly one version folder; found 2, 3"),
        ("3/a b.txt", "'a b.txt' cannot be a file of a Triton model"),
        ("3/manifest.json", "the publisher writes it itself"),
    ],
)
def test_what_does_not_belong_is_named(entry: Path, path: str, problem: str) -> None:
    (entry / path).parent.mkdir(exist_ok=True)
    (entry / path).touch()
    assert problem in refusal(entry).message


@pytest.mark.parametrize("place", [".", "3"])
def test_a_symbolic_link_is_refused(entry: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "secret.md").touch()
    (entry / place / "link.md").symlink_to(tmp_path / "secret.md")
    assert "symbolic link" in refusal(entry).message


def test_a_version_folder_that_is_a_link_is_refused(entry: Path, tmp_path: Path) -> None:
    shutil.move(entry / "3", tmp_path / "elsewhere")
    (entry / "3").symlink_to(tmp_path / "elsewhere")
    assert "symbolic link '3'" in refusal(entry).message


@pytest.mark.parametrize("name", [".hidden", "two words", "-dash"])
def test_a_name_that_triton_misreads_is_refused(entry: Path, name: str) -> None:
    assert (
        "cannot be the name of a Triton model" in refusal(entry.rename(entry.parent / name)).message
    )


@pytest.mark.parametrize("missing", ["config.pbtxt", "golden.json", "3"])
def test_what_is_missing_is_named(entry: Path, missing: str) -> None:
    path = entry / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    error = refusal(entry)
    assert isinstance(error, RequestError)
    assert ("found none" if missing == "3" else f"{missing} is missing") in error.message


def test_how_to_write_golden_answers_is_told(entry: Path) -> None:
    (entry / "golden.json").unlink()
    hint = refusal(entry).hint
    document = json.loads(hint[hint.index("{") :])
    for tensor in (*document["inputs"], *document["outputs"]):
        tensor["data"] = [1, 2]
    (entry / "golden.json").write_text(json.dumps(document))
    read_entry(entry)


def test_golden_answers_that_do_not_fit_are_refused(entry: Path) -> None:
    wrong = golden()
    wrong["outputs"][0]["datatype"] = "FP64"
    (entry / "golden.json").write_text(json.dumps(wrong))
    assert "'y' of its outputs is FP32 in the config, found 'FP64'" in refusal(entry).message


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('backend: "python"', 'backend: "python" name: "other"', "named 'other', and its folder"),
        ('backend: "python"', "", "it names no backend"),
        ("max_batch_size: 4", "max_batch_size: -1", "max_batch_size is -1"),
        ("input {", "version_policy { latest { } } input {", "leave version_policy out"),
        ("input {", "version_policy { specific { versions: [2, 3] } } input {", "leave version_po"),
        ("input {", "model_transaction_policy { decoupled: true } input {", "it is decoupled"),
        ("input {", "sequence_batching { } input {", "it has sequence_batching"),
        ("data_type: TYPE_FP32 dims", "dims", "input 'x' has no data_type"),
        ("dims: [ 2 ]", "", "input 'x' has dims [], expected one or more"),
        ("dims: [ 2 ]", "dims: [ 0 ]", "input 'x' has dims [0]"),
        ('name: "x"', "", "an input has no name"),
        (PYTHON[PYTHON.index("output") :], "", "it has no output"),
        (
            "output {",
            'input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } output {',
            "input 'x' is there more than once",
        ),
        ("input {", "inputs {", "config.pbtxt cannot be read: not a config.pbtxt: 4:1"),
    ],
)
def test_a_wrong_config_is_told(entry: Path, old: str, new: str, problem: str) -> None:
    (entry / "config.pbtxt").write_text(PYTHON.replace(old, new, 1))
    error = refusal(entry)
    assert isinstance(error, ModelError)
    assert problem in error.message


def test_every_problem_is_told_at_once(entry: Path) -> None:
    (entry / "config.pbtxt").write_text(PYTHON.replace("dims: [ 2 ]", "") + 'name: "other"')
    (entry / "3" / "model.py").unlink()
    (entry / "3" / "main.py").touch()
    message = refusal(entry).message
    assert all(text in message for text in ("'other'", "input 'x'", "output 'y'", "3/model.py"))


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    assert "there is no folder" in refusal(tmp_path / "nothing").message
