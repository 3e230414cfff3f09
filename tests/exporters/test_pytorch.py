from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.pytorch
import numpy as np
import pytest
import torch
from mlflow.models import ModelSignature
from mlflow.types.schema import Schema, TensorSpec
from torch import nn

from pipeline.artifacts import Export, SourceModel
from pipeline.checks.gate import check_export
from pipeline.errors import ModelError
from pipeline.exporters import torch_programs
from pipeline.exporters.logged import GENERATED_ORIGIN, LOGGED_ORIGIN
from pipeline.exporters.pytorch import PytorchExporter
from pipeline.onnx_graph import load_graph
from pipeline.reports import Question
from pipeline.samples import load_samples
from pipeline.testing.exporter_contract import (
    ExporterContract,
    export_here,
    source_from_folder,
)

IMAGES = np.random.default_rng(3).normal(size=(3, 1, 8, 8)).astype(np.float32)
ROWS = np.ones((4, 4), np.float32)
FRAME = [("float32", (-1, 1, 8, 8), None)]
PAIR = [("float32", (-1, 4), "left"), ("float32", (-1, 2), "right")]


class ConvNet(nn.Module):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4 * 6 * 6, 3)

    def forward(self, image: Any) -> Any:
        return self.head(self.dropout(self.features(image)).flatten(1))


class TwoTowers(nn.Module):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(4, 2)

    def forward(self, left: Any, right: Any) -> Any:
        return {"difference": self.left(left) - right, "passed": right}


class Recurrent(nn.Module):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True)

    def forward(self, sequence: Any) -> Any:
        return self.lstm(sequence)[0]


class EightRowsAtATime(nn.Module):  # type: ignore[misc,unused-ignore]
    def forward(self, x: Any) -> Any:
        return x.reshape(8, 4) * 2


class Loop(nn.Module):  # type: ignore[misc,unused-ignore]
    def forward(self, x: Any) -> Any:
        return torch.stack([x[row] * row for row in range(x.shape[0])])


def built(kind: type) -> Any:
    torch.manual_seed(0)
    return kind().eval()


def signature(specs: list[tuple[str, tuple[int, ...], str | None]]) -> Any:
    return ModelSignature(Schema([TensorSpec(np.dtype(t), shape, n) for t, shape, n in specs]))


def save(folder: Path, model: Any, specs: Any, example: Any, kind: str) -> SourceModel:
    mlflow.pytorch.save_model(
        model,
        folder,
        signature=signature(specs) if specs else None,
        input_example=example,
        serialization_format=kind,
        pip_requirements=[],
    )
    return source_from_folder(folder)


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Export]:
    def run(model: Any, specs: Any, example: Any, kind: str = "pickle") -> Export:
        source = save(tmp_path / "model", model, specs, example, kind)
        (tmp_path / "out").mkdir()
        return export_here(PytorchExporter(), source, tmp_path / "out")

    return run


def assert_agrees(exported: Export) -> None:
    report = check_export(exported)
    assert report.ok, report.problems


def test_large_weights_lie_beside_the_graph(
    export: Callable[..., Export], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that holds them is copied whole by whatever reads it."""
    monkeypatch.setattr(torch_programs, "MOST_INNER_BYTES", 64 * 64)
    inputs = np.eye(4, 64, dtype=np.float32)
    exported = export(nn.Linear(64, 64).eval(), [("float32", (-1, 64), None)], inputs)
    sizes = {file.name: file.stat().st_size for file in exported.onnx.path.iterdir()}
    assert len(sizes) == 2
    assert sizes.pop("model.onnx") < 4096
    assert sizes.popitem()[1] >= 4 * 64 * 64
    assert_agrees(exported)


def shapes(exported: Export) -> list[str]:
    return [str(spec) for spec in (*exported.onnx.inputs, *exported.onnx.outputs)]


class TestContractOfPrograms(ExporterContract):
    exporter = PytorchExporter

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        folder = tmp_path_factory.mktemp("logged") / "model"
        return save(folder, built(ConvNet), FRAME, IMAGES, "pt2")

    def test_the_graph_has_the_names_of_forward_and_a_free_batch(self, exported: Export) -> None:
        assert shapes(exported) == ["image: FP32[?,1,8,8]", "output: FP32[?,3]"]
        assert exported.samples_origin == LOGGED_ORIGIN

    def test_nothing_of_this_machine_is_in_the_graph(self, exported: Export) -> None:
        data = exported.onnx.file.read_bytes()
        assert b"site-packages" not in data
        assert Path(__file__).name.encode() not in data

    def test_a_tampered_weight_is_found_by_the_check(
        self, exported: Export, tmp_path: Path
    ) -> None:
        graph = load_graph(exported.onnx.file)
        bias = next(t for t in graph.graph.initializer if t.name == "head.bias")
        values = np.frombuffer(bias.raw_data, dtype=np.float32).copy()
        values[1] += 0.01
        bias.raw_data = values.tobytes()
        tampered = tmp_path / "model.onnx"
        tampered.write_bytes(graph.SerializeToString())
        onnx = dataclasses.replace(exported.onnx, path=tmp_path)
        report = check_export(dataclasses.replace(exported, onnx=onnx))
        compared = [c for c in report.comparisons if c.question is Question.VALUES]
        assert not any(c.ok for c in compared)
        assert "output 'output' differs by 0.01" in compared[0].problem


def test_a_pickled_module_with_one_row_has_a_free_batch(export: Callable[..., Export]) -> None:
    exported = export(built(ConvNet), FRAME, IMAGES[:1])
    assert shapes(exported) == ["image: FP32[?,1,8,8]", "output: FP32[?,3]"]
    assert load_samples(exported.samples).rows == 1
    assert_agrees(exported)


def test_a_program_with_a_frozen_batch_is_refused(export: Callable[..., Export]) -> None:
    with pytest.raises(ModelError, match=r"dimension 0 of input 'image' .* frozen at 1 ") as caught:
        export(built(ConvNet), FRAME, IMAGES[:1], "pt2")
    assert "at least 2 along dimension 0" in caught.value.hint


def test_two_inputs_of_a_program_come_from_the_program(export: Callable[..., Export]) -> None:
    example = (torch.ones(3, 4), torch.arange(6.0).reshape(3, 2))
    exported = export(built(TwoTowers), PAIR, example, "pt2")
    assert shapes(exported) == [
        "left: FP32[?,4]",
        "right: FP32[?,2]",
        "difference: FP32[?,2]",
        "passed: FP32[?,2]",
    ]
    assert exported.samples_origin == "example inputs kept in the exported program"
    np.testing.assert_array_equal(load_samples(exported.samples).inputs["right"], example[1])
    assert_agrees(exported)


def test_a_dict_of_inputs_is_passed_by_name(export: Callable[..., Export]) -> None:
    example = {"right": np.ones((3, 2), np.float32), "left": np.ones((3, 4), np.float32)}
    exported = export(built(TwoTowers), PAIR[::-1], example)
    assert shapes(exported)[:2] == ["left: FP32[?,4]", "right: FP32[?,2]"]
    assert_agrees(exported)


def test_inputs_are_generated_from_the_signature_and_the_origin_says_so(
    export: Callable[..., Export],
) -> None:
    exported = export(built(TwoTowers), PAIR, None)
    assert exported.samples_origin == GENERATED_ORIGIN
    assert load_samples(exported.samples).rows == 8
    assert_agrees(exported)


def test_a_sequence_that_a_program_froze_is_free_in_a_pickled_module(
    export: Callable[..., Export], tmp_path: Path
) -> None:
    specs = [("float32", (-1, -1, 4), None)]
    example = np.random.default_rng(5).normal(size=(2, 5, 4)).astype(np.float32)
    source = save(tmp_path / "program", built(Recurrent), specs, example, "pt2")
    (tmp_path / "refused").mkdir()
    with pytest.raises(ModelError, match=r"dimension 1 of .*'sequence'.* frozen at 5") as caught:
        PytorchExporter().export(source, tmp_path / "refused")
    assert "serialization_format='pickle'" in caught.value.hint
    exported = export(built(Recurrent), specs, example)
    assert shapes(exported) == ["sequence: FP32[?,?,4]", "output: FP32[?,?,3]"]
    assert_agrees(exported)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        (EightRowsAtATime, "takes no other size than that of its example"),
        (Loop, r"keeps the size of dimension 0 .* has shape \[8, 4\], expected \[9, 4\]"),
    ],
)
def test_code_that_fixes_the_batch_is_refused(
    export: Callable[..., Export], kind: type, problem: str
) -> None:
    example = np.ones((8, 4), np.float32)
    with pytest.raises(ModelError, match=problem) as caught:
        export(built(kind), [("float32", (-1, 4), None)], example)
    assert "x.shape" in caught.value.hint


def test_a_model_in_training_mode_is_refused(export: Callable[..., Export]) -> None:
    with pytest.raises(ModelError, match="answers differently each time") as caught:
        export(nn.Sequential(nn.Dropout(0.5)).train(), [("float32", (-1, 4), "x")], ROWS, "pt2")
    assert "model.eval()" in caught.value.hint


def test_neither_signature_nor_example(export: Callable[..., Export]) -> None:
    with pytest.raises(ModelError, match="without signature and input example") as caught:
        export(built(ConvNet), None, None)
    assert "infer_signature" in caught.value.hint


def test_a_signature_with_another_number_of_inputs(export: Callable[..., Export]) -> None:
    with pytest.raises(ModelError, match=r"takes 1 tensors \(image\).* has 2"):
        export(built(ConvNet), PAIR, None)


def test_an_example_that_the_model_cannot_take(export: Callable[..., Export]) -> None:
    with pytest.raises(ModelError, match="cannot predict on its inputs"):
        export(built(ConvNet), [("float32", (-1, 4), None)], ROWS)


def test_a_damaged_file(tmp_path: Path) -> None:
    source = save(tmp_path / "model", built(ConvNet), FRAME, IMAGES, "pickle")
    (source.path / "data" / "model.pth").write_bytes(b"PK\x03\x04 not a module")
    with pytest.raises(ModelError, match="model/1 cannot be loaded"):
        PytorchExporter().export(source, tmp_path)
