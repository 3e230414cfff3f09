from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import ModelError
from pipeline.onnx_graph import all_tensors, load_graph, rename_tensors, strip_notes, tensor_specs
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

FLOAT = TensorProto.FLOAT


def value(name: str, shape: Any = ("n", 2), kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def graph_of(nodes: Any, inputs: Any, outputs: Any, tensors: Any = ()) -> Any:
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def branching() -> Any:
    """``z = a + b if flag else a - b``, whose branches use outer tensors by name."""
    branches: dict[str, Any] = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(operator, ["inner", "b"], [f"{name}_out"])],
            name,
            [],
            [value(f"{name}_out")],
        )
        for name, operator in (("then", "Add"), ("else", "Sub"))
    }
    nodes = [
        helper.make_node("Identity", ["a"], ["inner"]),
        helper.make_node("If", ["flag"], ["z"], **branches),
    ]
    inputs = [value("a"), value("b"), value("flag", [], TensorProto.BOOL)]
    return graph_of(nodes, inputs, [value("z")])


def run(model: Any, **inputs: Any) -> Any:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    outputs = [output.name for output in session.get_outputs()]
    return dict(zip(outputs, session.run(None, inputs), strict=True))


def test_specs_have_names_types_and_free_dimensions() -> None:
    model = graph_of(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", ["n", None, 3], TensorProto.STRING)],
        [value("y", ["n", None, 3], TensorProto.STRING)],
    )
    inputs, outputs = tensor_specs(model)
    shape = (DYNAMIC, DYNAMIC, 3)
    assert inputs == (TensorSpec(name="x", data_type=DataType.STRING, shape=shape),)
    assert outputs == (TensorSpec(name="y", data_type=DataType.STRING, shape=shape),)


def test_an_input_with_an_initializer_is_optional() -> None:
    default = numpy_helper.from_array(np.ones((1, 2), np.float32), "b")
    model = graph_of(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [value("a"), value("b", [1, 2])],
        [value("y")],
        [default],
    )
    assert [spec.optional for spec in tensor_specs(model)[0]] == [False, True]


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (value("x", [2], TensorProto.COMPLEX64), "'x' has the ONNX element type COMPLEX64"),
        (value("x", [2], TensorProto.FLOAT8E4M3FN), "'x' has the ONNX element type FLOAT8E4M3FN"),
        (value("x", None), "'x' has no shape"),
        (helper.make_tensor_sequence_value_info("x", FLOAT, [2]), "'x' is a sequence"),
    ],
)
def test_what_triton_cannot_carry_is_refused_by_name(wrong: Any, problem: str) -> None:
    model = graph_of([helper.make_node("Identity", ["x"], ["y"])], [wrong], [value("y")])
    with pytest.raises(ModelError, match=problem) as caught:
        tensor_specs(model)
    assert caught.value.hint


def test_renaming_reaches_subgraphs_and_changes_names_only() -> None:
    a, b = np.array([[3, 4]], np.float32), np.array([[1, 2]], np.float32)
    model = branching()
    rename_tensors(model, ["City name", "age (years)", "flag"], ["sum or difference"])
    for flag, expected in ((True, a + b), (False, a - b)):
        answer = run(model, **{"City name": a, "age (years)": b, "flag": np.array(flag)})
        np.testing.assert_array_equal(answer["sum or difference"], expected)


def test_swapped_names_stay_apart() -> None:
    a, b = np.array([[3, 4]], np.float32), np.array([[1, 2]], np.float32)
    model = branching()
    rename_tensors(model, ["b", "a", "flag"], ["z"])
    answer = run(model, b=a, a=b, flag=np.array(False))
    np.testing.assert_array_equal(answer["z"], a - b)


def test_an_inner_tensor_makes_room() -> None:
    a, b = np.array([[3, 4]], np.float32), np.array([[1, 2]], np.float32)
    model = branching()
    rename_tensors(model, ["inner", "then_out", "flag"], ["z"])
    answer = run(model, inner=a, then_out=b, flag=np.array(True))
    np.testing.assert_array_equal(answer["z"], a + b)


def test_an_output_that_is_an_input_or_given_twice_gets_a_name_of_its_own() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    model = graph_of(nodes, [value("x")], [value("y"), value("x"), value("y")])
    rename_tensors(model, ["in"], ["first", "same", "second"])
    x = np.array([[1, 2]], np.float32)
    answer = run(model, **{"in": x})
    assert list(answer) == ["first", "same", "second"]
    np.testing.assert_array_equal(answer["same"], x)
    np.testing.assert_array_equal(answer["second"], -x)


def test_one_name_for_two_tensors_is_refused() -> None:
    with pytest.raises(ModelError, match="would be called 'label'"):
        rename_tensors(branching(), ["label", "b", "flag"], ["label"])


def test_constants_are_found_in_attributes_and_subgraphs() -> None:
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "hidden")
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor)], "then", [], [value("c", [2])]
    )
    node = helper.make_node("If", ["flag"], ["z"], then_branch=branch, else_branch=branch)
    model = graph_of([node], [value("flag", [], TensorProto.BOOL)], [value("z", [2])])
    assert [found.name for found in all_tensors(model)] == ["hidden", "hidden"]


def test_notes_are_removed_and_nothing_else() -> None:
    model = branching()
    clean = model.SerializeToString(deterministic=True)
    model.doc_string = model.graph.doc_string = "/home/somebody"
    inner = model.graph.node[1].attribute[0].g.node[0]
    for noted in (model, model.graph, model.graph.node[0], model.graph.input[0], inner):
        noted.metadata_props.add(key="stack_trace", value="/home/somebody/train.py")
    strip_notes(model)
    assert model.SerializeToString(deterministic=True) == clean


@pytest.mark.parametrize("content", [b"not a graph", b""])
def test_a_file_that_is_no_graph(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        load_graph(tmp_path / "model.onnx")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.onnx cannot be read"):
        load_graph(tmp_path / "model.onnx")
