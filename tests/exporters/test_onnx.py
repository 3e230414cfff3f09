from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.onnx
import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from pipeline.artifacts import Export, SourceModel
from pipeline.checks.gate import check_export
from pipeline.errors import ModelError
from pipeline.exporters.logged import LOGGED_ORIGIN
from pipeline.exporters.onnx import OnnxExporter
from pipeline.onnx_graph import all_tensors, load_graph
from pipeline.samples import load_samples
from pipeline.testing.exporter_contract import (
    ExporterContract,
    export_here,
    source_from_folder,
)

WEIGHTS = np.random.default_rng(1).normal(size=(64, 8)).astype(np.float32)
"""Larger than 1 KiB, from where on MLflow keeps tensors beside the graph."""


def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def linear_graph(**initializers: Any) -> Any:
    initializers.setdefault("weights", WEIGHTS)
    nodes = [helper.make_node("MatMul", ["x", "weights"], ["y"])]
    tensors = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    return model(nodes, [value("x", ["rows", 64])], [value("y", ["rows", 8])], tensors)


def model(nodes: Any, inputs: Any, outputs: Any, initializers: Any = ()) -> Any:
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(folder: Path, graph: Any, example: Any = None) -> SourceModel:
    mlflow.onnx.save_model(graph, folder, input_example=example, pip_requirements=[])
    return source_from_folder(folder)


def logged_by_hand(folder: Path, graph: Any) -> SourceModel:
    """As somebody who means harm, or another tool, writes it."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    document = {"flavors": {"onnx": {"data": "model.onnx", "onnx_version": onnx.__version__}}}
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    return source_from_folder(folder)


def with_location(graph: Any, location: str) -> Any:
    tensor = graph.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return graph


@pytest.fixture
def export(tmp_path: Path) -> Callable[[SourceModel], Export]:
    def run(source: SourceModel) -> Export:
        (tmp_path / "out").mkdir()
        return export_here(OnnxExporter(), source, tmp_path / "out")

    return run


def assert_agrees(exported: Export) -> None:
    report = check_export(exported)
    assert report.ok, report.problems


class TestContract(ExporterContract):
    exporter = OnnxExporter

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        return save(tmp_path_factory.mktemp("logged") / "model", linear_graph())

    def test_graph_and_data_are_the_authors_bytes(
        self, source: SourceModel, exported: Export
    ) -> None:
        copies = {path.name: path.read_bytes() for path in exported.onnx.path.iterdir()}
        assert len(copies) == 2
        assert copies == {name: (source.path / name).read_bytes() for name in copies}
        assert exported.onnx.opset == 17

    def test_inputs_are_generated_and_the_origin_says_so(self, exported: Export) -> None:
        samples = load_samples(exported.samples)
        assert samples.rows == 8
        assert exported.samples_origin.startswith("generated from the inputs of the graph")
        expected = samples.inputs["x"] @ WEIGHTS
        np.testing.assert_allclose(samples.outputs["y"], expected, rtol=1e-4, atol=1e-5)


def test_the_logged_example_is_used(tmp_path: Path, export: Callable[..., Export]) -> None:
    example = {"x": np.full((2, 64), 0.5, np.float32)}
    exported = export(save(tmp_path / "model", linear_graph(), example))
    assert exported.samples_origin == LOGGED_ORIGIN
    np.testing.assert_array_equal(load_samples(exported.samples).inputs["x"], example["x"])


def test_an_example_that_does_not_fit_the_graph(
    tmp_path: Path, export: Callable[..., Export]
) -> None:
    source = save(tmp_path / "model", linear_graph(), {"z": np.ones((2, 64), np.float32)})
    with pytest.raises(ModelError, match=r"missing \['x'\], not in the graph \['z'\]"):
        export(source)


@pytest.mark.parametrize("location", ["weights folder/über.bin", "model.onnx_data", ".hidden"])
def test_data_files_get_names_that_a_repository_can_hold(
    tmp_path: Path, export: Callable[..., Export], location: str
) -> None:
    source = logged_by_hand(tmp_path / "model", with_location(linear_graph(), location))
    (source.path / location).parent.mkdir(exist_ok=True)
    (source.path / location).write_bytes(WEIGHTS.tobytes())
    exported = export(source)
    names = {path.name for path in exported.onnx.path.iterdir()}
    assert len(names) == 2
    assert all(name.isascii() and not {" ", "/"} & set(name) for name in names)
    assert not any(name.startswith(".") for name in names)
    (tensor,) = all_tensors(load_graph(exported.onnx.file))
    assert {entry.value for entry in tensor.external_data} < names
    assert_agrees(exported)


def test_data_files_whose_safe_names_collide_stay_apart(
    tmp_path: Path, export: Callable[..., Export]
) -> None:
    graph = linear_graph(weights=WEIGHTS, bias=np.arange(8, dtype=np.float32))
    graph.graph.node.append(helper.make_node("Add", ["y", "bias"], ["z"]))
    graph.graph.output[0].name = "z"
    for tensor, location in zip(graph.graph.initializer, ["a b", "a?b"], strict=True):
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    source = logged_by_hand(tmp_path / "model", graph)
    (source.path / "a b").write_bytes(WEIGHTS.tobytes())
    (source.path / "a?b").write_bytes(np.arange(8, dtype=np.float32).tobytes())
    assert_agrees(export(source))


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link"])
def test_data_from_outside_of_the_folder_is_refused(
    tmp_path: Path, export: Callable[..., Export], location: str
) -> None:
    (tmp_path / "secret").write_bytes(WEIGHTS.tobytes())
    source = logged_by_hand(tmp_path / "model", with_location(linear_graph(), location))
    (source.path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="outside the model's folder"):
        export(source)
    assert not any((tmp_path / "out" / "onnx").iterdir())


def test_a_data_file_that_is_missing(tmp_path: Path, export: Callable[..., Export]) -> None:
    source = logged_by_hand(tmp_path / "model", with_location(linear_graph(), "weights"))
    with pytest.raises(ModelError, match="'weights', which was not logged"):
        export(source)


def test_a_graph_named_outside_of_the_folder(tmp_path: Path, export: Callable[..., Export]) -> None:
    source = logged_by_hand(tmp_path / "model", linear_graph())
    (tmp_path / "other.onnx").write_bytes(linear_graph().SerializeToString())
    text = (source.path / "MLmodel").read_text()
    (source.path / "MLmodel").write_text(text.replace("model.onnx", "../other.onnx"))
    with pytest.raises(ModelError, match="outside the model's folder"):
        export(source)


def test_maps_are_refused_with_the_way_out(tmp_path: Path, export: Callable[..., Export]) -> None:
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["s"])]
    outputs = [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["rows", 2])]
    source = save(tmp_path / "model", model(nodes, [value("x", ["rows", 2])], outputs))
    with pytest.raises(ModelError, match="'s' is a sequence") as caught:
        export(source)
    assert "zipmap" in caught.value.hint


def test_an_input_with_a_default_is_optional(tmp_path: Path, export: Callable[..., Export]) -> None:
    graph = linear_graph()
    graph.graph.input.append(value("weights", [64, 8]))
    exported = export(save(tmp_path / "model", graph))
    assert [(spec.name, spec.optional) for spec in exported.onnx.inputs] == [
        ("x", False),
        ("weights", True),
    ]
    assert set(load_samples(exported.samples).inputs) == {"x"}
    assert_agrees(exported)


def test_strings_and_integers_are_made_up(tmp_path: Path, export: Callable[..., Export]) -> None:
    nodes = [
        helper.make_node("Identity", ["words"], ["same"]),
        helper.make_node("Gather", ["table", "index"], ["found"]),
    ]
    inputs = [value("words", ["n", 1], TensorProto.STRING), value("index", ["n"], 7)]
    outputs = [value("same", ["n", 1], TensorProto.STRING), value("found", ["n"])]
    table = [numpy_helper.from_array(np.array([0.5, 1.5], np.float32), "table")]
    exported = export(save(tmp_path / "model", model(nodes, inputs, outputs, table)))
    samples = load_samples(exported.samples)
    assert set(samples.outputs["found"]) == {0.5, 1.5}
    assert_agrees(exported)


def test_a_graph_that_cannot_run_as_it_was_logged(
    tmp_path: Path, export: Callable[..., Export]
) -> None:
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    shape = [numpy_helper.from_array(np.array([7, 7]), "shape")]
    graph = model(nodes, [value("x", ["rows", 2])], [value("y", [7, 7])], shape)
    with pytest.raises(ModelError, match="ONNX Runtime cannot run model/1 as it was logged"):
        export(save(tmp_path / "model", graph))


def test_a_file_that_is_no_graph(tmp_path: Path, export: Callable[..., Export]) -> None:
    source = logged_by_hand(tmp_path / "model", linear_graph())
    (source.path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"model\.onnx"):
        export(source)
