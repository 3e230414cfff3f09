from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.artifacts import OnnxModel
from pipeline.checks.batches import among_others, batch_sizes, batches
from pipeline.checks.gate import check_onnx
from pipeline.checks.runs import Inputs
from pipeline.checks.tolerances import Tolerances
from pipeline.reports import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE, Question, Report
from pipeline.samples import Samples
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

FLOATS = np.arange(22, dtype=np.float32).reshape(11, 2) - 7


def doubling(folder: Path, node: Any = None, batch: Any = "rows", out: Any = None) -> OnnxModel:
    """``y = x + x``, or another node."""
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, 2]) for n in "xy"]
    node = node or helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "onnx").mkdir(exist_ok=True)
    onnx.save(model, folder / "onnx" / "model.onnx")
    shape = (DYNAMIC if batch == "rows" else batch, 2)
    specs = [TensorSpec(name=n, data_type=DataType.FP32, shape=shape) for n in "xy"]
    return OnnxModel(
        path=folder / "onnx",
        opset=17,
        inputs=(specs[0],),
        outputs=(specs[1],),
        digest="",
        source_digest="",
        flavor="onnx",
        tools={},
    )


def golden(outputs: Any, inputs: Any = FLOATS, origin: str = "here") -> Inputs:
    samples = Samples(inputs={"x": inputs}, outputs={"y": np.asarray(outputs, np.float32)})
    return Inputs(samples=samples, origin=origin)


def report_of(model: OnnxModel, outputs: Any, **options: Any) -> Report:
    return check_onnx(model, [golden(outputs)], **options)


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 7, 8, 64])
@pytest.mark.parametrize("rows", [1, 2, 6, 130])
def test_every_size_is_filled_whole_and_the_largest_sees_every_row(rows: int, largest: int) -> None:
    sizes = batch_sizes(largest)
    assert sizes[0] == 1
    assert sizes[-1] == largest
    assert largest < 3 or any(size % 2 and size > 1 for size in sizes)
    for size in sizes:
        parts = batches(rows, size, largest=largest)
        assert all(len(part) == size and set(part) <= set(range(rows)) for part in parts)
    assert set(np.concatenate(batches(rows, largest, largest=largest))) == set(range(rows))


def test_a_row_stands_among_different_others() -> None:
    for row, batch in among_others(20, 8):
        assert len(set(batch)) == len(batch) == 8
        assert row in batch


def test_a_model_that_takes_batches_is_run_at_every_size(tmp_path: Path) -> None:
    report = report_of(doubling(tmp_path), FLOATS * 2, left_out=["nothing"])
    assert report.ok
    asked = [(c.subject, c.rows) for c in report.comparisons if c.question is Question.VALUES]
    assert asked == [
        ("onnx, batch 1", 4),
        ("onnx, batch 2", 8),
        ("onnx, batch 7", 14),
        ("onnx, batch 64", 64),
    ]
    beside = [c for c in report.comparisons if c.question is Question.NEIGHBOURS]
    assert {c.subject for c in beside} == {"onnx, rows alone and among 10 others"}
    assert (report.samples_origin, report.left_out) == ("here", ("nothing",))
    assert report.relative_tolerance == RELATIVE_TOLERANCE
    assert report.absolute_tolerance == ABSOLUTE_TOLERANCE


def test_every_set_of_inputs_is_compared_and_named(tmp_path: Path) -> None:
    probe = golden(FLOATS[:2] * 3, FLOATS[:2], origin="other rows")
    report = check_onnx(doubling(tmp_path), [golden(FLOATS * 2), probe])
    assert not report.ok
    assert all("other rows" in problem for problem in report.problems)
    assert {c.inputs for c in report.comparisons if c.ok} >= {"here"}


def test_a_model_without_batches_is_run_once(tmp_path: Path) -> None:
    report = report_of(doubling(tmp_path, batch=11), FLOATS * 2)
    assert report.ok
    assert [c.subject for c in report.comparisons] == ["onnx"]


def test_a_server_without_batches_puts_no_rows_together(tmp_path: Path) -> None:
    softmax = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    report = report_of(doubling(tmp_path, softmax), np.ones_like(FLOATS), max_batch_size=1)
    assert report.ok
    assert {c.subject for c in report.comparisons} == {"onnx, batch 1"}


def test_a_wrong_answer_is_found_with_its_rows(tmp_path: Path) -> None:
    expected = FLOATS * 2
    expected[9] += 0.5
    report = report_of(doubling(tmp_path), expected, max_batch_size=16)
    assert not report.ok
    assert report.max_absolute_error == pytest.approx(0.5)
    last = next(c for c in report.comparisons if c.subject == "onnx, batch 16")
    assert last.failing_rows == (9,)
    pair = next(c for c in report.comparisons if c.subject == "onnx, batch 2")
    assert pair.failing_rows == (9,), "the number of the row in its inputs, not in the run"
    assert "in row 9 at" in pair.problem
    assert str(last).startswith("onnx, batch 16, here: output 'y' differs by 0.5 in row 9 at [0]")


def test_a_model_that_mixes_rows_is_found_even_if_its_source_does_too(tmp_path: Path) -> None:
    softmax = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    expected = np.exp(FLOATS) / np.exp(FLOATS).sum(axis=0)
    report = report_of(doubling(tmp_path, softmax), expected, max_batch_size=11)
    beside = [c for c in report.comparisons if c.question is Question.NEIGHBOURS]
    assert not any(c.ok for c in beside)
    assert "a row's answer depends on the rows beside it" in beside[0].problem
    whole = [c for c in report.comparisons if c.subject == "onnx, batch 11"]
    assert all(c.ok for c in whole)


def test_rows_may_be_as_far_from_themselves_as_a_tenth_of_what_is_chosen(tmp_path: Path) -> None:
    """A kernel's noise, for which somebody widened the tolerance, must not refuse it here."""
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 2]) for n in "xy"]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["m", "x"], ["d"]),
        helper.make_node("Mul", ["d", "c"], ["e"]),
        helper.make_node("Add", ["x", "e"], ["y"]),
    ]
    noise = [helper.make_tensor("c", TensorProto.FLOAT, [], [1e-4])]
    graph = helper.make_graph(nodes, "g", tensors[:1], tensors[1:], noise)
    model = doubling(tmp_path)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), model.file)
    assert not report_of(model, FLOATS).ok
    assert report_of(model, FLOATS, tolerances=Tolerances(absolute_tolerance=0.1)).ok
    tight = report_of(model, FLOATS, tolerances=Tolerances(absolute_tolerance=2e-3))
    assert {c.question for c in tight.comparisons if not c.ok} == {Question.NEIGHBOURS}


def test_one_row_proves_nothing_about_neighbours_and_it_is_told(tmp_path: Path) -> None:
    report = check_onnx(doubling(tmp_path), [golden(FLOATS[:1] * 2, FLOATS[:1])])
    assert report.ok
    assert "nothing shows that rows do not depend on each other" in report.left_out[0]


def test_a_batch_of_another_size_that_fails_is_a_finding(tmp_path: Path) -> None:
    model = doubling(tmp_path, batch=11)
    import dataclasses

    free = dataclasses.replace(
        model,
        inputs=tuple(dataclasses.replace(s, shape=(DYNAMIC, 2)) for s in model.inputs),
        outputs=tuple(dataclasses.replace(s, shape=(DYNAMIC, 2)) for s in model.outputs),
    )
    report = report_of(free, FLOATS * 2)
    assert not report.ok
    assert all("ONNX Runtime cannot run it" in problem for problem in report.problems)


def test_a_graph_that_cannot_be_loaded_is_a_finding(tmp_path: Path) -> None:
    model = doubling(tmp_path)
    model.file.write_bytes(b"not a graph")
    assert "ONNX Runtime cannot load it" in report_of(model, FLOATS).problems[0]


def test_no_rows_and_no_expected_outputs_are_no_proof(tmp_path: Path) -> None:
    empty = golden(FLOATS[:0], FLOATS[:0])
    nothing = Inputs(samples=Samples(inputs={"x": FLOATS}, outputs={}), origin="")
    for part in (empty, nothing):
        report = check_onnx(doubling(tmp_path), [golden(FLOATS * 2), part])
        assert report.problems
        assert "nothing to compare" in report.problems[0]


def allowing(fraction: float) -> Tolerances:
    return Tolerances(allowed_row_fraction=fraction)


def test_a_part_of_the_rows_may_be_wrong_only_if_somebody_allows_it(tmp_path: Path) -> None:
    expected = FLOATS * 2
    expected[3] += 1.0
    model = doubling(tmp_path)
    assert not report_of(model, expected).ok
    assert not report_of(model, expected, tolerances=allowing(0.9 / 11)).ok
    allowed = report_of(model, expected, tolerances=allowing(1 / 11))
    assert allowed.ok
    assert sum(c.mismatched for c in allowed.comparisons) > 0
    assert allowed.allowed_row_fraction == 1 / 11


def test_rows_are_counted_over_all_inputs(tmp_path: Path) -> None:
    wrong = FLOATS[:2] * 2
    wrong[0] += 1.0
    parts = [
        golden(wrong, FLOATS[:2]),
        golden(np.tile(FLOATS, (9, 1)) * 2, np.tile(FLOATS, (9, 1))),
    ]
    assert check_onnx(doubling(tmp_path), parts, tolerances=allowing(0.01)).ok
    assert not check_onnx(doubling(tmp_path), parts[:1], tolerances=allowing(0.01)).ok


def test_an_allowed_part_excuses_no_size_of_batch_and_no_neighbours(tmp_path: Path) -> None:
    softmax = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    expected = np.exp(FLOATS) / np.exp(FLOATS).sum(axis=0)
    report = report_of(
        doubling(tmp_path, softmax), expected, max_batch_size=11, tolerances=allowing(0.2)
    )
    assert {c.subject for c in report.comparisons if not c.ok} >= {
        "onnx, batch 1",
        "onnx, batch 2",
        "onnx, rows alone and among 10 others",
    }


def test_a_kept_case_reproduces_its_finding(tmp_path: Path) -> None:
    cases = tmp_path
    expected = FLOATS * 2
    expected[5, 1] = 123.0
    report = report_of(doubling(tmp_path), expected, cases=cases, max_batch_size=4)
    named = [c.case for c in report.comparisons if c.case]
    assert named == ["case-1.npz", "case-2.npz", "case-3.npz"][: len(named)]
    with np.load(cases / named[0]) as case:
        assert 123.0 in case["expected:y"]
        np.testing.assert_array_equal(case["found:y"], case["input:x"] * 2)


def test_nothing_is_kept_of_what_agrees(tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    assert report_of(doubling(tmp_path), FLOATS * 2, cases=tmp_path / "cases").ok
    assert not list((tmp_path / "cases").iterdir())
