"""What people log as an entry becomes one that is published, with its files as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.deployments.ready_entries import logged_entry, write_entry
from pipeline.errors import ModelError
from pipeline.golden_requests import golden_samples, golden_text
from pipeline.handwritten import read_entry
from pipeline.model_config import config_from_text, tensor_specs

CONFIG = """
name: "as-it-was-called"
backend: "python"
max_batch_size: 4
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 2 ] }
"""
GOLDEN = (
    '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}],'
    ' "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}'
)
MODEL = "class TritonPythonModel:\n    def execute(self, requests): ...\n"


def logged(folder: Path, more: str = "", *, versions: tuple[int, ...] = (1,)) -> Path:
    entry = folder / "artifact" / "its-folder"
    for version in versions:
        (entry / str(version)).mkdir(parents=True)
        (entry / str(version) / "model.py").write_text(f"{MODEL}# {version}\n")
    (entry / "config.pbtxt").write_text(CONFIG + more)
    (entry / "golden.json").write_text(GOLDEN)
    return entry


def published(entry: Path, folder: Path) -> tuple[str, bytes]:
    """Config and model of what would be published as version 7 of ``fraud``."""
    write_entry(entry, folder / "fraud", number=7, subject="m/7")
    found = read_entry(folder / "fraud")
    assert (found.name, found.version) == ("fraud", 7)
    return found.config, (found.folder / "model.py").read_bytes()


@pytest.mark.parametrize("where", [".", "its-folder"])
def test_an_entry_is_found_at_the_root_and_below_it(tmp_path: Path, where: str) -> None:
    entry = logged(tmp_path)
    assert logged_entry(entry if where == "." else entry.parent, "m/7") == entry


def test_no_entry_and_several_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="found none"):
        logged_entry(tmp_path, "m/7")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.pbtxt").write_text(CONFIG)
    with pytest.raises(ModelError, match="found a, b"):
        logged_entry(tmp_path, "m/7")


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ("", 12),
        ("version_policy { latest { num_versions: 1 } }", 12),
        ("version_policy { specific { versions: [ 3 ] } }", 3),
    ],
)
def test_the_version_that_triton_would_serve_gets_the_number_of_the_registered_one(
    tmp_path: Path, policy: str, served: int
) -> None:
    config, model = published(logged(tmp_path, policy, versions=(3, 12)), tmp_path)
    assert model.decode().endswith(f"# {served}\n")
    assert "versions: 7" in config
    assert "as-it-was-called" not in config


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        ("version_policy { all { } }", "3, 12"),
        ("version_policy { latest { num_versions: 2 } }", "3, 12"),
        ("version_policy { specific { versions: [ 5 ] } }", "none"),
    ],
)
def test_a_policy_of_several_versions_is_refused(tmp_path: Path, policy: str, found: str) -> None:
    entry = logged(tmp_path, policy, versions=(3, 12))
    with pytest.raises(ModelError, match=f"serves versions {found}"):
        write_entry(entry, tmp_path / "fraud", number=7, subject="m/7")


@pytest.mark.parametrize(
    ("label", "file"), [("labels.txt", "labels.txt"), ("1/labels.txt", "1/labels.txt")]
)
def test_labels_go_with_the_version(tmp_path: Path, label: str, file: str) -> None:
    entry = logged(tmp_path)
    (entry / file).write_text("cat\ndog\n")
    text = (entry / "config.pbtxt").read_text()
    (entry / "config.pbtxt").write_text(
        text.replace('name: "y"', f'name: "y" label_filename: "{label}"')
    )
    config, _model = published(entry, tmp_path)
    assert 'label_filename: "7/labels.txt"' in config
    assert (tmp_path / "fraud" / "7" / "labels.txt").read_text() == "cat\ndog\n"


@pytest.mark.parametrize(("data", "file"), [("x.bin", "warmup/x.bin"), ("../1/x.bin", "1/x.bin")])
def test_warm_up_data_goes_with_the_version(tmp_path: Path, data: str, file: str) -> None:
    warmup = (
        'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value {'
        f' data_type: TYPE_FP32 dims: [ 2 ] input_data_file: "{data}" }} }} }}'
    )
    entry = logged(tmp_path, warmup)
    (entry / file).parent.mkdir(exist_ok=True)
    (entry / file).write_bytes(bytes(8))
    config, _model = published(entry, tmp_path)
    assert 'input_data_file: "../7/' in config
    assert len(list((tmp_path / "fraud" / "7").rglob("x.bin"))) == 1


def test_nothing_outside_of_what_was_logged_is_published(tmp_path: Path) -> None:
    secret = tmp_path / "artifact" / "secret.txt"
    entry = logged(tmp_path)
    secret.write_text("key")
    text = (entry / "config.pbtxt").read_text()
    (entry / "config.pbtxt").write_text(
        text.replace('name: "y"', 'name: "y" label_filename: "../secret.txt"')
    )
    write_entry(entry, tmp_path / "fraud", number=7, subject="m/7")
    assert "secret.txt" not in {path.name for path in (tmp_path / "fraud").rglob("*")}
    with pytest.raises(ModelError, match="label_filename"):
        read_entry(tmp_path / "fraud")


def test_what_is_no_part_of_an_entry_is_refused_by_name(tmp_path: Path) -> None:
    entry = logged(tmp_path)
    (entry / "weights").mkdir()
    write_entry(entry, tmp_path / "fraud", number=7, subject="m/7")
    with pytest.raises(Exception, match="'weights'"):
        read_entry(tmp_path / "fraud")


def test_a_golden_request_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_entry(logged(tmp_path), tmp_path / "fraud", number=7, subject="m/7")
    entry = read_entry(tmp_path / "fraud")
    config = config_from_text(entry.config)
    inputs, outputs = tensor_specs(config.input, 4), tensor_specs(config.output, 4)
    again = golden_samples(
        golden_text(entry.golden), inputs=inputs, outputs=outputs, max_batch_size=4
    )
    assert again.to_bytes() == entry.golden.to_bytes()
