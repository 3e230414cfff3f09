"""The script beside a kept case: it says whether a graph still disagrees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.artifacts import OnnxModel
from pipeline.checks.cases import Cases
from pipeline.checks.gate import check_onnx
from pipeline.checks.runs import Inputs
from pipeline.checks.tolerances import Tolerance
from pipeline.reports import Question
from pipeline.samples import Samples
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

FLOATS = np.arange(22, dtype=np.float32).reshape(11, 2) - 7
DOUBLED: tuple[str, list[str], Any] = ("Add", ["x", "x"], {})


def write_graph(folder: Path, operator: str, inputs: list[str], options: Any = None) -> OnnxModel:
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 2]) for n in "xy"]
    node = helper.make_node(operator, inputs, ["y"], **(options or {}))
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "onnx").mkdir(exist_ok=True)
    onnx.save(model, folder / "onnx" / "model.onnx")
    specs = [TensorSpec(name=n, data_type=DataType.FP32, shape=(DYNAMIC, 2)) for n in "xy"]
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


def reproduce(folder: Path, case: str = "case-1.npz") -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-P", folder / "reproduce.py", case],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("Mul", ["x", "x"], {}), "row 0 at [0]: expected -14, found 49"),
        (("Softmax", ["x"], {"axis": 0}), "output 'y'"),
        (("ReduceSum", ["x"], {"keepdims": 1}), "expected float32 ["),
        (("Concat", ["x", "x"], {"axis": 1}), "expected float32 ["),
    ],
)
def test_every_kept_case_disagrees_until_the_graph_is_right(
    tmp_path: Path, wrong: tuple[str, list[str], Any], told: str
) -> None:
    given = Samples(inputs={"x": FLOATS}, outputs={"y": FLOATS * 2})
    graph = write_graph(tmp_path, *wrong)
    report = check_onnx(graph, [Inputs(samples=given, origin="here")], cases=tmp_path)
    kept = sorted(path.name for path in tmp_path.glob("case-*.npz"))
    assert kept == sorted({c.case for c in report.comparisons if c.case})
    verdicts = [reproduce(tmp_path, case) for case in kept]
    assert {code for code, _ in verdicts} == {1}
    assert all(text.startswith("still disagrees: ") for _, text in verdicts)
    assert any(told in text for _, text in verdicts)
    write_graph(tmp_path, *DOUBLED)
    assert {reproduce(tmp_path, case) for case in kept} == {(0, "agrees now: output 'y'\n")}


def keep(folder: Path, found: Any, expected: Any, question: Question, absolute: float) -> None:
    arrays = {"y": np.asarray(expected, np.float32)}
    tolerances = {"y": Tolerance(relative=0.0, absolute=absolute)}
    rows = {"x": np.asarray(found, np.float32)}
    case = Cases(folder).keep(
        rows, arrays, {"y": rows["x"]}, output="y", question=question, tolerances=tolerances
    )
    assert case == "case-1.npz"


@pytest.mark.parametrize(
    ("question", "expected", "absolute", "code"),
    [
        (Question.DECISION, [[0.6, 0.4]], 0.16, 1),
        (Question.DECISION, [[0.52, 0.48]], 0.16, 0),  # as good as equal
        (Question.DECISION, [[0.4, 0.6]], 0.01, 0),
        (Question.VALUES, [[0.6, 0.4]], 0.16, 0),
        (Question.VALUES, [[0.6, 0.4]], 0.14, 1),
        (Question.VALUES, [[np.nan, 0.55]], 0.16, 1),
    ],
)
def test_it_asks_what_was_asked_with_the_same_tolerance(
    tmp_path: Path, question: Question, expected: Any, absolute: float, code: int
) -> None:
    write_graph(tmp_path, "Identity", ["x"])
    keep(tmp_path, [[0.45, 0.55]], expected, question, absolute)
    assert reproduce(tmp_path)[0] == code


def test_a_row_that_depends_on_others_is_asked_alone_again(tmp_path: Path) -> None:
    write_graph(tmp_path, "Softmax", ["x"], {"axis": 0})
    keep(tmp_path, FLOATS, FLOATS, Question.NEIGHBOURS, 1e-5)
    assert reproduce(tmp_path)[0] == 1
    write_graph(tmp_path, "Softmax", ["x"], {"axis": 1})
    assert reproduce(tmp_path) == (0, "agrees now: output 'y'\n")


def test_what_it_cannot_run_is_told(tmp_path: Path) -> None:
    write_graph(tmp_path, "Identity", ["x"])
    keep(tmp_path, [[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]], Question.VALUES, 0.0)
    code, text = reproduce(tmp_path)
    assert (code, text.startswith("still disagrees: ONNX Runtime cannot run it")) == (1, True)
    (tmp_path / "onnx" / "model.onnx").write_bytes(b"no graph")
    assert "ONNX Runtime cannot load it" in reproduce(tmp_path)[1]
