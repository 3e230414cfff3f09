"""What MLflow expects of a target, and what it gets when something fails."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from mlflow.deployments import BaseDeploymentClient, PredictionsResponse, get_deploy_client
from mlflow.deployments.cli import commands
from mlflow.exceptions import MlflowException

from pipeline import errors
from pipeline.deployments.changes import ExistsError, MissingError
from pipeline.deployments.errors import CODES, NoDeploymentError, as_mlflow
from pipeline.deployments.predictions import Predictions

OUTPUTS = {
    "label": np.array([[1], [0]]),
    "scores": np.array([[0.25, np.nan], [np.inf, 1.0]], np.float32),
    "text": np.array(["é", "b"], dtype=object),
}


@pytest.mark.parametrize("target", ["tritonpipe", "triton"])
def test_both_targets_are_this_one(target: str) -> None:
    client: Any = get_deploy_client(target)
    assert type(client).__name__ == "TritonpipeDeploymentClient"
    done = CliRunner().invoke(commands, ["help", "-t", target])
    assert done.exit_code == 0
    assert "models:/NAME@ALIAS" in done.output


def test_calls_take_what_mlflow_gives_them() -> None:
    client = get_deploy_client("tritonpipe")
    for name in BaseDeploymentClient.__abstractmethods__:
        theirs = inspect.signature(getattr(BaseDeploymentClient, name)).parameters
        ours = inspect.signature(getattr(type(client), name)).parameters
        assert list(ours)[: len(theirs)] == list(theirs)


def test_what_is_not_there_says_so() -> None:
    client: Any = get_deploy_client("tritonpipe")
    for call in (
        client.list_endpoints,
        lambda: client.create_endpoint("e"),
        lambda: client.predict_stream("d", {}),
        lambda: client.explain("d", None),
        lambda: client.list_deployments(endpoint="e"),
        lambda: client.create_deployment("d", "models:/m/1", endpoint="e"),
    ):
        with pytest.raises(MlflowException, match="no endpoints") as raised:
            call()
        assert raised.value.error_code == "NOT_IMPLEMENTED"
    with pytest.raises(MlflowException, match="name the deployment"):
        client.predict(inputs={})
    with pytest.raises(MlflowException, match="takes no path"):
        get_deploy_client("tritonpipe:/prod")


def test_every_error_of_ours_is_one_of_mlflows_with_what_to_do() -> None:
    leaves = {*errors.TritonpipeError.__subclasses__(), ExistsError, MissingError}
    assert CODES.keys() | {"StackError"} == {leaf.__name__ for leaf in leaves}
    for leaf in leaves:
        with pytest.raises(MlflowException, match="it broke\nhint: mend it") as raised, as_mlflow():
            raise leaf("it broke", hint="mend it")
        assert raised.value.error_code == CODES.get(leaf.__name__, "INTERNAL_ERROR")
        assert isinstance(raised.value.__cause__, leaf)
        assert isinstance(raised.value, ValueError) == (leaf is MissingError)
    with pytest.raises(NoDeploymentError), as_mlflow():
        raise MissingError("nothing")


def test_the_command_prints_a_sentence_and_no_traceback() -> None:
    options = ["create", "-t", "tritonpipe", "--name", "m", "-m", "models:/m/1", "-C", "x=1"]
    done = CliRunner().invoke(commands, options)
    assert done.exit_code == 1
    assert done.output.startswith("Error: the config has 'x'")
    assert "hint: known are" in done.output


def test_loading_the_target_imports_nothing_heavy_but_mlflow() -> None:
    code = """
import sys, types
for name, members in {
    "mlflow": {}, "mlflow.protos": {},
    "mlflow.deployments": {"BaseDeploymentClient": object},
    "mlflow.exceptions": {"MlflowException": type("Stub", (Exception,), {})},
    "mlflow.protos.databricks_pb2": {"ErrorCode": None},
}.items():
    sys.modules[name] = types.ModuleType(name)
    vars(sys.modules[name]).update(members)
import pipeline.deployments
print(*{name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name for name in done.stdout.split() if not name.startswith("_")}
    assert loaded <= {"pipeline", "click", "mlflow", "sitecustomize"}


def test_answers_are_read_as_from_nvidias_plugin_and_as_from_mlflow(tmp_path: Path) -> None:
    answers = Predictions.from_outputs(OUTPUTS)
    assert isinstance(answers, PredictionsResponse)
    assert answers["outputs"]["label"] is OUTPUTS["label"]
    frame = answers.get_predictions()
    assert frame["label"].tolist() == [1, 0]
    assert frame["scores"][1] == [np.inf, 1.0]
    expected = {
        "outputs": {"label": [[1], [0]], "scores": [[0.25, None], [None, 1.0]], "text": ["é", "b"]}
    }
    assert json.loads(answers.to_json() or "") == expected
    assert answers.to_json(str(tmp_path / "answers.json")) is None
    assert json.loads((tmp_path / "answers.json").read_text(encoding="utf-8")) == expected
    with pytest.raises(MlflowException, match="label, scores, text"):
        answers.get_predictions("ndarray")
    with pytest.raises(MlflowException, match="neither"):
        answers.get_predictions("list")
    alone = Predictions.from_outputs({"label": OUTPUTS["label"]})
    assert alone.get_predictions("ndarray", np.float64).tolist() == [[1.0], [0.0]]
