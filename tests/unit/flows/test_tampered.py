"""Models whose files were exchanged after they were logged, through the real exporters."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from pipeline.artifacts import ModelVersion, SourceModel
from pipeline.errors import ModelError
from pipeline.flows.worker import Limits, export_in_child


class Payload:
    """Unpickled, it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    tensors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", 2]) for n in "xy"]
    node = helper.make_node("Add", ["x", "x"], ["y"])
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")
    flavors = {"onnx": {"data": "model.onnx"}}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    (tmp_path / "out").mkdir()
    return folder


@pytest.fixture
def export(logged: Path, tmp_path: Path) -> Callable[[], Any]:
    source = SourceModel(
        version=ModelVersion(name="iris", version=3, run_id=None, source="", tags={}),
        path=logged,
        flavors=("onnx",),
        digest="sha256:0",
    )
    return lambda: export_in_child(source, tmp_path / "out", limits=Limits(seconds=120))


@pytest.mark.parametrize("is_renamed", [True, False], ids=["mlmodel", "file"])
def test_a_pickle_in_the_place_of_a_graph_is_refused_unloaded(
    export: Callable[[], Any], logged: Path, tmp_path: Path, is_renamed: bool
) -> None:
    trace = tmp_path / "out" / "trace"
    name = "model.pkl" if is_renamed else "model.onnx"
    (logged / name).write_bytes(pickle.dumps(Payload(trace)))
    if is_renamed:
        flavors = {"onnx": {"data": name, "pickled_model": name, "code": "code"}}
        (logged / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    with pytest.raises(ModelError, match="cannot be read as an ONNX graph"):
        export()
    assert not trace.exists()
    pickle.loads((logged / name).read_bytes())
    assert trace.exists(), "the payload works"


def test_code_beside_a_graph_is_not_run(
    export: Callable[[], Any], logged: Path, tmp_path: Path
) -> None:
    (logged / "code").mkdir()
    for module in ("onnxruntime", "numpy", "helper", "sitecustomize"):
        (logged / "code" / f"{module}.py").write_text("raise SystemExit('it ran')")
    (logged / "requirements.txt").write_text(f"numpy=={np.__version__}")
    flavors = {"onnx": {"data": "model.onnx", "code": "code"}, "python_function": {"code": "code"}}
    (logged / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    assert export().onnx.opset == 17
