from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.artifacts import OnnxModel
from pipeline.checks.parity import check_onnx, compare
from pipeline.reports import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE, Comparison
from pipeline.samples import Samples
from pipeline.tensors import DYNAMIC, DataType, TensorSpec


def compared(expected: Any, actual: Any) -> Comparison:
    (comparison,) = compare(
        "run",
        {"y": np.asarray(expected)},
        {"y": np.asarray(actual)},
        relative_tolerance=1e-3,
        absolute_tolerance=1e-5,
    )
    return comparison


FLOATS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=np.float32)


@pytest.mark.parametrize(
    "array",
    [
        FLOATS,
        FLOATS.astype(np.float16),
        np.array([np.nan, np.inf, -np.inf, 0.0]),
        np.array([1, 2**62], dtype=np.int64),
        np.array([True, False]),
        np.array(["yes", "nø"], dtype=object),
        np.array(["yes", "no"]),
        np.array(1.5, dtype=np.float32),
    ],
    ids=str,
)
def test_whatever_equals_itself_agrees(array: Any) -> None:
    comparison = compared(array, array.copy())
    assert comparison.ok
    assert comparison.mismatched == 0
    assert comparison.max_absolute_error == 0.0
    assert comparison.rows == (array.shape[0] if array.ndim else 1)


@pytest.mark.parametrize("distance", [1e-5, 1e-3, 1.0])
def test_the_tolerance_is_the_sum_of_both_parts(distance: float) -> None:
    expected = np.array([0.0, 1.0, 1000.0])
    within = np.array([0.9e-5, 1.0 + 1.0e-3, 1000.9])
    assert compared(expected, within).ok
    beyond = within.copy()
    index = [1e-5, 1e-3, 1.0].index(distance)
    beyond[index] = expected[index] + distance * 1.02 + 1e-5 * (index > 0)
    assert compared(expected, beyond).mismatched == 1


def test_rows_are_counted_not_values() -> None:
    actual = FLOATS.copy()
    actual[1] += 1.0
    comparison = compared(FLOATS, actual)
    assert (comparison.rows, comparison.mismatched) == (3, 1)


def test_the_problem_names_the_worst_value() -> None:
    actual = FLOATS.copy()
    actual[0, 0] += 0.1
    actual[2, 1] -= 0.5
    comparison = compared(FLOATS, actual)
    assert comparison.problem == (
        "output 'y' differs by 0.5 in row 2 at [1]: expected 6, found 5.5; "
        "2 of 3 rows are out of tolerance"
    )
    assert comparison.max_absolute_error == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (np.nan, 1.0),
        (1.0, np.nan),
        (np.inf, -np.inf),
        (np.inf, 1e30),
        (1.0, np.inf),
    ],
)
def test_a_value_that_is_no_number_is_worse_than_any_distance(
    expected: float, actual: float
) -> None:
    comparison = compared([1.0, expected, 2.0], [1.0, actual, 102.0])
    assert comparison.mismatched == 2
    assert "in row 1" in comparison.problem
    assert comparison.max_absolute_error == 100.0


@pytest.mark.parametrize(
    ("expected", "actual", "problem"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "has shape [3, 2], expected [2, 3]"),
        (np.zeros(2), np.zeros((2, 1)), "has shape [2, 1], expected [2]"),
        (np.zeros(2, np.float32), np.zeros(2), "is of type float64, expected float32"),
        (np.zeros(2, np.int64), np.zeros(2, np.int32), "is of type int32, expected int64"),
        (np.array(["0"]), np.array([0]), "is of type int64, expected text"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "has no values to compare"),
    ],
)
def test_another_shape_or_type_is_a_problem(expected: Any, actual: Any, problem: str) -> None:
    assert problem in compared(expected, actual).problem


def test_integers_and_truth_values_must_be_equal() -> None:
    integers = compared(np.array([1000, 2000]), np.array([1000, 2001]))
    assert integers.problem == (
        "output 'y' differs by 1 in row 1: expected '2000', found '2001'; "
        "1 of 2 rows are out of tolerance"
    )
    assert compared(np.array([True, False]), np.array([True, True])).mismatched == 1


def test_integers_beyond_the_precision_of_floats_must_be_equal_too() -> None:
    assert not compared(np.array([2**62]), np.array([2**62 + 1])).ok


@pytest.mark.parametrize(
    "actual",
    [np.array(["yes", "nø"]), np.array([b"yes", "nø".encode()], dtype=object)],
)
def test_text_is_text_however_it_is_kept(actual: Any) -> None:
    assert compared(np.array(["yes", "nø"], dtype=object), actual).ok
    assert "expected 'no', found 'nø'" in compared(np.array(["yes", "no"]), actual).problem


def test_a_missing_and_an_additional_output_are_problems() -> None:
    missing, additional = compare(
        "run", {"a": FLOATS}, {"b": FLOATS}, relative_tolerance=1, absolute_tolerance=1
    )
    assert missing.problem == "output 'a' is missing"
    assert missing.mismatched == 3
    assert additional.problem == "output 'b' has no prediction of the source model"


def doubling(folder: Path, node: Any = None, batch: Any = "rows") -> OnnxModel:
    """``y = x + x``, or another node."""
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, 2]) for n in "xy"]
    node = node or helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    shape = (DYNAMIC if batch == "rows" else batch, 2)
    specs = [TensorSpec(name=n, data_type=DataType.FP32, shape=shape) for n in "xy"]
    return OnnxModel(
        path=folder,
        opset=17,
        inputs=(specs[0],),
        outputs=(specs[1],),
        digest="",
        source_digest="",
        flavor="onnx",
        tools={},
    )


def report_of(model: OnnxModel, outputs: Any) -> Any:
    samples = Samples(inputs={"x": FLOATS}, outputs={"y": np.asarray(outputs, np.float32)})
    return check_onnx(model, samples, samples_origin="here")


def test_a_model_that_takes_batches_is_run_three_times(tmp_path: Path) -> None:
    report = report_of(doubling(tmp_path), FLOATS * 2)
    assert report.ok
    assert [(c.subject, c.rows) for c in report.comparisons] == [
        ("onnx, batch 3", 3),
        ("onnx, first row alone", 1),
        ("onnx, batch 6 (rows repeated)", 6),
    ]
    assert report.samples_origin == "here"
    assert report.relative_tolerance == RELATIVE_TOLERANCE
    assert report.absolute_tolerance == ABSOLUTE_TOLERANCE


def test_a_model_without_batches_is_run_once(tmp_path: Path) -> None:
    report = report_of(doubling(tmp_path, batch=3), FLOATS * 2)
    assert report.ok
    assert [c.subject for c in report.comparisons] == ["onnx, batch 3"]


def test_a_wrong_answer_is_found(tmp_path: Path) -> None:
    report = report_of(doubling(tmp_path), FLOATS * 2.01)
    assert not report.ok
    assert report.max_absolute_error == pytest.approx(0.06, rel=1e-3)


def test_a_model_that_mixes_rows_is_found(tmp_path: Path) -> None:
    softmax = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    report = report_of(doubling(tmp_path, softmax), np.exp(FLOATS) / np.exp(FLOATS).sum(axis=0))
    assert [c.ok for c in report.comparisons] == [True, False, False]


def test_a_run_that_fails_is_a_finding(tmp_path: Path) -> None:
    report = report_of(doubling(tmp_path, batch=7), FLOATS * 2)
    assert not report.ok
    assert "ONNX Runtime cannot run it" in report.comparisons[0].problem


def test_no_rows_are_no_proof(tmp_path: Path) -> None:
    samples = Samples(inputs={"x": FLOATS[:0]}, outputs={"y": FLOATS[:0]})
    assert not check_onnx(doubling(tmp_path), samples, samples_origin="").ok


def test_no_expected_outputs_are_no_proof(tmp_path: Path) -> None:
    samples = Samples(inputs={"x": FLOATS}, outputs={})
    assert not check_onnx(doubling(tmp_path), samples, samples_origin="").ok
