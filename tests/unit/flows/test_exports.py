"""When a model's own code takes the place of a graph; what is made of it is tested elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import ModelVersion, SourceModel
from pipeline.errors import DependencyError, ModelError
from pipeline.flows import exports
from pipeline.flows.packing import packages_of
from pipeline.flows.progress import silent
from pipeline.flows.worker import Limits
from pipeline.settings import Settings


def source(folder: Path, *flavors: str, **tags: str) -> SourceModel:
    version = ModelVersion(name="m", version=1, run_id=None, source="", tags=tags)
    (folder / "MLmodel").write_text("signature: { inputs: '[]' }", encoding="utf-8")
    return SourceModel(version=version, path=folder, flavors=flavors, digest="")


class Packed:
    """In the place of a packed model."""

    inputs = ()


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> Any:
    export = type("Export", (), {"packed": Packed()})()
    monkeypatch.setattr(exports, "packages_of", lambda *_: "packages")
    monkeypatch.setattr(exports, "pack_in_child", lambda *_, **__: export)
    return export


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def raises(*_: object, **__: object) -> Any:
        raise error

    monkeypatch.setattr(exports, "export_in_child", raises)


def made(model: SourceModel, folder: Path, setting: Any) -> Any:
    settings = Settings(pyfunc=setting, cache="off")
    return exports.made_export(model, folder, Limits(), settings, silent)


def test_a_model_without_exporter_is_packed_if_that_is_allowed(tmp_path: Path, packed: Any) -> None:
    assert made(source(tmp_path, "python_function"), tmp_path, "on") is packed


def test_a_model_whose_exporter_refuses_is_packed_if_that_is_allowed(
    tmp_path: Path, packed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, ModelError("an operator is missing"))
    assert made(source(tmp_path, "sklearn", "python_function"), tmp_path, "on") is packed


@pytest.mark.parametrize("setting", ["off", "on"])
def test_without_inputs_its_own_code_is_no_way_out(
    tmp_path: Path, packed: Any, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flavors in (("python_function",), ("sklearn", "python_function")):
        folder = tmp_path / str(len(flavors))
        folder.mkdir()
        model = source(folder, *flavors)
        (folder / "MLmodel").write_text("flavors: {}", encoding="utf-8")
        refuse(monkeypatch, ModelError("nothing says what its inputs are"))
        with pytest.raises(ModelError) as raised:
            made(model, folder, setting)
        assert "TRITONPIPE_PYFUNC" not in raised.value.hint


@pytest.mark.parametrize("setting", ["off", "tagged"])
def test_otherwise_the_reason_is_told_and_how_to_allow_it(
    tmp_path: Path, packed: Any, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, ModelError("an operator is missing"))
    for flavors in (("python_function",), ("sklearn", "python_function")):
        folder = tmp_path / str(len(flavors))
        folder.mkdir()
        with pytest.raises(ModelError) as raised:
            made(source(tmp_path, *flavors), folder, setting)
        assert "TRITONPIPE_PYFUNC" in raised.value.hint


def test_what_is_no_fault_of_the_model_does_not_put_code_into_the_server(
    tmp_path: Path, packed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, DependencyError("skl2onnx is not installed"))
    with pytest.raises(DependencyError):
        made(source(tmp_path, "sklearn", "python_function"), tmp_path, "on")


def test_a_model_of_another_python_is_refused_before_anything_is_installed(tmp_path: Path) -> None:
    (tmp_path / "python_env.yaml").write_text("python: 3.9.1\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"logged with Python 3\.9, and tritonpipe runs on 3\."):
        packages_of(source(tmp_path, "python_function"), Settings(), silent)
