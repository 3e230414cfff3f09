"""Models logged as users of MLflow, and of NVIDIA's plugin, log them."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
from mlflow.deployments import get_deploy_client
from mlflow.models import Model
from onnx import TensorProto, helper, numpy_helper
from sklearn.linear_model import LogisticRegression

COLUMNS = ["amount", "age", "hour"]
SIZE = 300
"""Values of the weights; MLflow keeps tensors of 1 KiB and more in a file of their own."""


@pytest.fixture
def client(stack: object) -> Any:
    return get_deploy_client("tritonpipe")


@pytest.fixture
def nvidia(stack: object) -> Any:
    """The client as users of NVIDIA's plugin open it."""
    return get_deploy_client("triton")


@pytest.fixture
def log(stack: object) -> SimpleNamespace:
    return SimpleNamespace(
        classifier=log_classifier,
        graph_with_external_data=log_graph_with_external_data,
        ready_entry=log_ready_entry,
        python_entry=log_python_entry,
    )


@contextmanager
def logging_a_model() -> Iterator[Any]:
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings(), mlflow.start_run() as run:
        warnings.simplefilter("ignore")
        yield run


def log_classifier(name: str, *, seed: int) -> tuple[LogisticRegression, pd.DataFrame, str]:
    """Registered; gives the model, rows, and the URI of the run."""
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame(rng.normal(size=(40, 3)), columns=COLUMNS)
    model = LogisticRegression().fit(rows, rows @ rng.normal(size=3) > 0)
    with logging_a_model() as run:
        mlflow.sklearn.log_model(
            model,
            name="model",
            input_example=rows.head(8),
            registered_model_name=name,
            serialization_format="cloudpickle",
            pip_requirements=["mlflow"],
        )
    return model, rows, f"runs:/{run.info.run_id}/model"


def log_graph_with_external_data(name: str) -> np.ndarray[Any, Any]:
    """Registered; gives the weights."""
    weights = np.arange(SIZE, dtype=np.float32)
    with logging_a_model():
        info = mlflow.onnx.log_model(
            _graph("Mul", weights),
            name="model",
            registered_model_name=name,
            pip_requirements=["mlflow"],
        )
    files = mlflow.artifacts.list_artifacts(artifact_uri=info.model_uri)
    assert any(file.path.endswith(".data") for file in files), "the case that is meant"
    return weights


def log_ready_entry(name: str, folder: Path, *, factor: float) -> None:
    """As NVIDIA's ``triton_flavor.log_model`` does: a folder of a Triton model repository."""
    entry = folder / f"entry-{factor}"
    (entry / "1").mkdir(parents=True)
    onnx.save(_graph("Mul", np.full(2, factor, dtype=np.float32)), entry / "1" / "model.onnx")
    (entry / "config.pbtxt").write_text(
        'platform: "onnxruntime_onnx" max_batch_size: 8\n'
        "version_policy: { latest { num_versions: 1 } }\n"
        'input [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]\n'
        'output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]\n'
    )

    _log_folder(name, entry)


def log_python_entry(name: str, folder: Path) -> str:
    """Likewise, of the Python backend; gives a golden request, which is not logged."""
    entry = folder / "python-entry"
    (entry / "1").mkdir(parents=True)
    (entry / "1" / "model.py").write_text(
        "import triton_python_backend_utils as pb\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        "        get = pb.get_input_tensor_by_name\n"
        "        values = [get(r, 'x').as_numpy() for r in requests]\n"
        "        return [pb.InferenceResponse([pb.Tensor('y', -v)]) for v in values]\n"
    )
    io = '%s { name: "%s" data_type: TYPE_FP32 dims: [ 2 ] }\n'
    config = 'backend: "python"\n' + io % ("input", "x") + io % ("output", "y")
    (entry / "config.pbtxt").write_text(config)
    _log_folder(name, entry)
    tensor = {"datatype": "FP32", "shape": [2]}
    x, y = {"name": "x", "data": [5, -1]}, {"name": "y", "data": [-5, 1]}
    return json.dumps({"inputs": [x | tensor], "outputs": [y | tensor]})


def _log_folder(name: str, entry: Path) -> None:
    def save_model(path: str, mlflow_model: Model, triton_model_path: str) -> None:
        shutil.copytree(triton_model_path, Path(path) / Path(triton_model_path).name)
        mlflow_model.add_flavor("triton", data=Path(triton_model_path).name)
        mlflow_model.save(str(Path(path) / "MLmodel"))

    with logging_a_model():
        Model.log(
            artifact_path="triton",
            flavor=SimpleNamespace(save_model=save_model),
            triton_model_path=str(entry),
            registered_model_name=name,
        )


def _graph(operator: str, constant: np.ndarray[Any, Any]) -> onnx.ModelProto:
    shape = ["N", constant.shape[0]]
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "c"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(constant, "c")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
