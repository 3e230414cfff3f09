from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.backend_files import file_problems
from pipeline.model_config import config_from_text
from pipeline.tensors import DataType, TensorSpec

ROW = TensorSpec(name="x", data_type=DataType.FP32, shape=(-1, 3))
ANSWER = TensorSpec(name="y", data_type=DataType.FP32, shape=(-1, 3))


def problems(folder: Path, config: str, *, x: TensorSpec = ROW, y: TensorSpec = ANSWER) -> str:
    parsed = config_from_text(config + " max_batch_size: 4")
    return "; ".join(file_problems(parsed, folder, [x], [y]))


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "1"
    folder.mkdir()
    return folder


WORKS = "class TritonPythonModel:\n    def execute(self, requests):\n        return []\n"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (WORKS, ""),
        (WORKS.replace("def", "async def"), ""),
        ("from base import Base\nclass TritonPythonModel(Base):\n    pass\n", ""),
        ("raise SystemExit('never run')\n" + WORKS, ""),
        ("class TritonPythonModel:\n    pass\n", "has no method execute"),
        ("def execute(requests):\n    return []\n", "defines no class TritonPythonModel"),
        (WORKS.replace(":\n", "\n", 1), "does not compile"),
        (WORKS + "return 1\n", "does not compile"),
        ("\0", "does not compile"),
        (None, "1/model.py is missing: Triton would wait for it for ever"),
    ],
)
def test_a_python_step_is_read_and_never_run(
    version: Path, source: str | None, problem: str
) -> None:
    if source is not None:
        (version / "model.py").write_text(source)
    found = problems(version, 'backend: "python"')
    assert problem in found
    assert bool(found) == bool(problem)


def test_a_python_step_may_have_another_name(version: Path) -> None:
    (version / "main.py").write_text(WORKS)
    assert problems(version, 'backend: "python" default_model_filename: "main.py"') == ""
    assert "1/model.py is missing" in problems(version, 'backend: "python"')


def save_graph(version: Path, x: Any = ("N", 3), y: Any = ("N", 3), name: str = "y") -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], [name])],
        "same",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, y)],
    )
    onnx.save(helper.make_model(graph), version / "model.onnx")


ONNX = 'backend: "onnxruntime"'


@pytest.mark.parametrize("config", [ONNX, 'platform: "onnxruntime_onnx"'])
def test_a_graph_is_compared_with_the_config(version: Path, config: str) -> None:
    assert problems(version, config) == "1/model.onnx is missing"
    save_graph(version)
    assert problems(version, config) == ""


@pytest.mark.parametrize(
    ("graph", "specs", "problem"),
    [
        ({"x": ("N", "M")}, {}, ""),  # an input may be narrower in the config
        ({"y": ("N", "M")}, {}, "output y: FP32[?,3] in the config is y: FP32[?,?] in the graph"),
        ({"x": ("N", 4)}, {}, "input x: FP32[?,3] in the config is x: FP32[?,4]"),
        ({"x": (1, 3)}, {}, "input x: FP32[?,3] in the config is x: FP32[1,3]"),
        ({"x": ("N", 3, 1)}, {}, "in the graph"),
        ({"name": "q"}, {}, "the graph has no output 'y'; it has 'q'"),
        (
            {},
            {"x": TensorSpec(name="x", data_type=DataType.FP64, shape=(-1, 3))},
            "input x: FP64[?,3] in the config is x: FP32[?,3] in the graph",
        ),
        (
            {},
            {"x": TensorSpec(name="z", data_type=DataType.FP32, shape=(-1, 3))},
            "input 'x' of the graph is not in the config; the graph has no input 'z'",
        ),
    ],
)
def test_a_graph_that_the_backend_would_refuse_is_told(
    version: Path, graph: dict[str, Any], specs: dict[str, TensorSpec], problem: str
) -> None:
    save_graph(version, **graph)
    found = problems(version, ONNX, **specs)
    assert problem in found
    assert bool(found) == bool(problem), found


def test_what_is_no_graph_is_told(version: Path) -> None:
    (version / "model.onnx").write_bytes(b"no graph")
    assert "cannot be read as an ONNX graph" in problems(version, ONNX)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ('output { name: "y" label_filename: "1/labels.txt" }', ""),
        ('output { name: "y" label_filename: "labels.txt" }', "such as 1/labels.txt; found"),
        ('output { name: "y" label_filename: "1/none.txt" }', "found '1/none.txt'"),
        ('model_warmup { inputs { key: "x" value: { input_data_file: "../1/labels.txt" } } }', ""),
        (
            'model_warmup { inputs { key: "x" value: { input_data_file: "row" } } }',
            "input_data_file of 'x' must be a file of the version, such as ../1/warmup.bin",
        ),
    ],
)
def test_files_that_the_config_names_are_in_the_version(
    version: Path, config: str, problem: str
) -> None:
    (version / "labels.txt").touch()
    found = problems(version, f'backend: "dali" {config}')
    assert problem in found
    assert bool(found) == bool(problem)
