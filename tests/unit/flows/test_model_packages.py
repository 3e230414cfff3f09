"""A model can be exported with its own packages: by a Python within the same walls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import EntryPoint, version
from pathlib import Path
from typing import Literal

import onnx
import pytest
from onnx import TensorProto, helper
from packaging.requirements import Requirement

import pipeline
from pipeline.artifacts import Export, SourceModel
from pipeline.errors import ModelError
from pipeline.flows import exports
from pipeline.flows import model_packages as model_packages_module
from pipeline.flows.inner_process import ModelPackages
from pipeline.flows.model_packages import export_requirements, model_packages
from pipeline.flows.progress import silent
from pipeline.flows.worker import Limits, export_in_child
from pipeline.settings import Settings
from pipeline.testing.exporter_contract import source_from_folder

WISHES: tuple[Literal["ours", "model"], ...] = ("ours", "model", "model")
MLMODEL = "flavors: {onnx: {data: model.onnx}}\nmodel_uuid: 1\n"


@pytest.fixture
def source(tmp_path: Path) -> SourceModel:
    folder = tmp_path / "model"
    folder.mkdir()
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 2]) for n in ("x", "y")]
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "model.onnx")
    (folder / "MLmodel").write_text(MLMODEL)
    (folder / "python_env.yaml").write_text("python: 3.11.7\n")
    (folder / "requirements.txt").write_text("mlflow==3.17.2\nscikit-learn==1.5.2\nnumpy<2\n")
    return source_from_folder(folder)


@pytest.fixture
def here() -> ModelPackages:
    """An environment as one is made for a model: this very one."""
    return ModelPackages(
        key="here",
        root=Path(sys.prefix),
        base=Path(sys.base_prefix),
        code=Path(pipeline.__file__).parent,
        exporter="pipeline.exporters.onnx:OnnxExporter",
    )


def test_what_the_model_lists_is_taken_as_it_says(source: SourceModel) -> None:
    wanted = export_requirements(source, "sklearn")
    found = {Requirement(line).name: line for line in wanted.packages}
    assert len(found) == len(wanted.packages), "nothing is asked for twice"
    assert wanted.python == "3.11"
    assert found["scikit-learn"] == "scikit-learn==1.5.2"
    assert found["numpy"] == "numpy<2"
    for converter in ("onnx", "onnxruntime", "skl2onnx"):
        assert found[converter] == f"{converter}=={version(converter)}", "as it is used here"
    assert not {"obstore", "click", "tritonclient", "torch"} & found.keys()


def test_another_build_of_the_same_package_is_not_added(source: SourceModel) -> None:
    (source.path / "requirements.txt").write_text("keras==3.15.1\ntensorflow==2.21.0\n")
    names = {Requirement(line).name for line in export_requirements(source, "keras").packages}
    assert "tensorflow" in names
    assert "tensorflow-cpu" not in names
    (source.path / "requirements.txt").write_text("keras==3.15.1\n")
    names = {Requirement(line).name for line in export_requirements(source, "keras").packages}
    assert "tensorflow-cpu" in names


def test_a_python_on_which_this_package_does_not_run_is_refused(source: SourceModel) -> None:
    (source.path / "python_env.yaml").write_text("python: 3.9.18\n")
    with pytest.raises(ModelError, match=r"Python 3\.9; an export runs on 3\.11 or 3\.12"):
        export_requirements(source, "onnx")


def test_nothing_is_installed_unless_it_is_wished(source: SourceModel) -> None:
    assert model_packages(source, "onnx", Settings(), silent) is None


def test_an_exporter_of_others_cannot_come_along(
    source: SourceModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("onnx", "other_package.onnx:Exporter", "tritonpipe.exporters")
    monkeypatch.setattr(model_packages_module, "kinds", lambda room: {"onnx": point})
    with pytest.raises(ModelError, match="another distribution") as raised:
        model_packages(source, "onnx", Settings(env="model"), silent)
    assert "--env ours" in raised.value.hint


def test_an_error_of_the_other_python_is_raised_here(
    source: SourceModel, here: ModelPackages, tmp_path: Path
) -> None:
    (source.path / "model.onnx").write_bytes(b"no graph")
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match=r"model\.onnx"):
        export_in_child(source, tmp_path / "out", packages=here)


def test_a_crash_of_the_other_python_is_told_as_what_it_is(
    source: SourceModel, here: ModelPackages, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="exporting model/1 crashed with SIGABRT"):
        export_in_child(source, tmp_path / "out", packages=replace(here, exporter="os:abort"))


def test_the_other_python_gives_the_same_export_and_the_cache_keeps_them_apart(
    source: SourceModel, here: ModelPackages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "model_packages", lambda *asked: here)
    made: list[str] = []

    @contextmanager
    def told(stage: str) -> Iterator[Callable[[str], None]]:
        yield made.append

    digests, answers = set(), set()
    for number, env in enumerate(WISHES):
        work = tmp_path / str(number)
        work.mkdir()
        settings = Settings(env=env, cache=str(tmp_path / "cache"))
        export = exports.made_export(source, work, Limits(), settings, told)
        assert isinstance(export, Export)
        digests.add(export.onnx.digest)
        answers.add(b"".join(file.read_bytes() for file in export.files[1:]))
    assert [words.endswith("made before") for words in made] == [False, False, True]
    assert len(digests) == len(answers) == 1
