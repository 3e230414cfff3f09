"""MLflow's own command and client, on real servers, from the first version to the last."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from click.testing import CliRunner
from mlflow.deployments.cli import commands
from mlflow.exceptions import MlflowException

from pipeline.flows.handwritten import publish
from pipeline.flows.journal import COMMITTING, PROMOTE
from pipeline.flows.servers import Servers
from pipeline.settings import Settings


def run(*arguments: object) -> str:
    """A command of ``mlflow deployments``, in this process."""
    done = CliRunner().invoke(commands, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_from_the_first_version_to_the_last(
    name: str, client: Any, nvidia: Any, tmp_path: Path, stack: Any, log: Any, servers: Servers
) -> None:
    first, rows, _uri = log.classifier(name, seed=1)
    mlflow.MlflowClient().set_registered_model_alias(name, "champion", "1")

    created = run("create", "-t", "tritonpipe", "--name", name, "-m", f"models:/{name}@champion")
    assert f"sklearn deployment {name} is created" in created
    deployment = {
        "name": name,
        "version": "1",
        "state": "READY",
        "triton_model_path": f"s3://models/repository/{name}",
        "mlflow_model_uri": f"models:/{name}/1",
        "flavor": "sklearn",
    }
    assert nvidia.get_deployment(name) == deployment
    assert deployment in client.list_deployments()
    assert f"name: {name}\n" in run("get", "-t", "triton", "--name", name)
    with pytest.raises(MlflowException, match="exists already") as raised:
        client.create_deployment(name, f"models:/{name}/1")
    assert raised.value.error_code == "RESOURCE_ALREADY_EXISTS"
    servers.journal.append(name, action=PROMOTE, event=COMMITTING, version=1, previous=None)
    made = client.create_deployment(name, f"models:/{name}/1")
    assert made["version"] == "1", "what a killed call began is finished by the same call"

    expected = first.predict_proba(rows)
    matrix = rows.to_numpy()
    for inputs in (
        rows,
        rows[["hour", "amount", "age"]],
        matrix,
        {"X": matrix.astype(np.float32)},
        {column: rows[column].to_numpy() for column in rows},
    ):
        outputs = client.predict(name, inputs)["outputs"]
        np.testing.assert_allclose(outputs["probabilities"], expected, 1e-3, 1e-5)
    file, answers = tmp_path / "rows.json", tmp_path / "answers.json"
    rows[["age", "hour", "amount"]].to_json(file, orient="records")
    run("predict", "-t", "triton", "--name", name, "-I", file, "-O", answers)
    found = json.loads(answers.read_text())["outputs"]["probabilities"]
    np.testing.assert_allclose(found, expected, 1e-3, 1e-5)

    second, rows, uri = log.classifier(name, seed=2)
    assert f"{name} is updated (with flavor sklearn)" in run(
        "update", "-t", "tritonpipe", "--name", name, "-m", uri
    )
    assert client.get_deployment(name)["mlflow_model_uri"] == f"models:/{name}/2"
    predictions = client.predict(name, rows).get_predictions()
    assert predictions["label"].tolist() == second.predict(rows).tolist()
    assert client.update_deployment(name)["version"] == "2", "without a URI it is confirmed"

    run("delete", "-t", "tritonpipe", "--name", name)
    with pytest.raises(ValueError, match="there is no deployment"):
        nvidia.get_deployment(name)
    with pytest.raises(MlflowException, match="gives no config"):
        client.predict(name, rows)
    client.delete_deployment(name)
    with pytest.raises(MlflowException, match="there is no deployment"):
        client.update_deployment(name, f"models:/{name}/1")

    local = run(
        "run-local", "-t", "tritonpipe", "--name", name, "-m", f"models:/{name}/1",
        "-C", f"state_dir={stack.state_directory}",
    )  # fmt: skip
    assert f"{name}/1 is served at {stack.addresses().triton_http}" in local
    assert client.get_deployment(name)["version"] == "1"


def test_a_graph_with_its_data_in_another_file_and_more_rows_than_one_request_takes(
    name: str, nvidia: Any, log: Any
) -> None:
    weights = log.graph_with_external_data(name)
    config = {"max_batch_size": "2", "version": "1"}
    made = nvidia.create_deployment(name, f"models:/{name}/1", flavor="onnx", config=config)
    assert (made["name"], made["flavor"]) == (name, "onnx")
    rows = np.random.default_rng(0).normal(size=(5, weights.size)).astype(np.float32)
    for inputs in ({"x": rows}, rows):
        np.testing.assert_array_equal(nvidia.predict(name, inputs)["outputs"]["y"], rows * weights)
    assert nvidia.update_deployment(name, config={"max_batch_size": 2})["version"] == "1"
    with pytest.raises(MlflowException, match=r"published with max_batch_size 2 \(not 4\)"):
        nvidia.update_deployment(name, config={"max_batch_size": 4})
    with pytest.raises(MlflowException, match="was not logged with the flavor 'sklearn'"):
        nvidia.update_deployment(name, f"models:/{name}/1", flavor="sklearn")
    mlflow.MlflowClient().copy_model_version(f"models:/{name}/1", f"{name}-copy")
    with pytest.raises(MlflowException, match=f"cannot serve the registered model '{name}-copy'"):
        nvidia.update_deployment(name, f"models:/{name}-copy/1")
    with pytest.raises(MlflowException, match="from its flavor 'onnx', not from 'python_function'"):
        nvidia.update_deployment(name, f"models:/{name}/1", flavor="python_function")


def test_a_ready_entry_as_nvidias_plugin_logs_it(
    name: str, nvidia: Any, tmp_path: Path, log: Any
) -> None:
    log.ready_entry(name, tmp_path, factor=2.0)
    mlflow_itself = Path(sys.executable).with_name("mlflow")
    options = ["--flavor", "triton", "--name", name, "-m", f"models:/{name}/1"]
    done = subprocess.run(
        [mlflow_itself, "deployments", "create", "-t", "triton", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"triton deployment {name} is created" in done.stdout
    file, answers = tmp_path / "input.json", tmp_path / "output.json"
    file.write_text('{"inputs": {"x": [[1.0, -3.0]]}}')
    run("predict", "-t", "triton", "--name", name, "-I", file, "-O", answers)
    assert json.loads(answers.read_text()) == {"outputs": {"y": [[2.0, -6.0]]}}

    log.ready_entry(name, tmp_path, factor=3.0)
    nvidia.update_deployment(name, f"models:/{name}/2", flavor="triton")
    found = nvidia.get_deployment(name)
    assert (found["version"], found["flavor"]) == ("2", "triton")
    assert found["mlflow_model_uri"] == f"models:/{name}/2"
    outputs = nvidia.predict(name, {"x": np.ones((1, 2), np.float32)})["outputs"]
    assert outputs["y"].tolist() == [[3.0, 3.0]]
    with pytest.raises(MlflowException, match=r"instances .* is decided by the config\.pbtxt"):
        nvidia.update_deployment(name, f"models:/{name}/2", config={"instances": 2})


def test_an_entry_that_cannot_be_computed_here_needs_a_request_and_its_answer(
    name: str, nvidia: Any, client: Any, tmp_path: Path, log: Any, settings: Settings
) -> None:
    golden = tmp_path / "golden.json"
    golden.write_text(log.python_entry(name, tmp_path))
    uri = f"models:/{name}/1"
    with pytest.raises(MlflowException, match="only of ONNX files the answers are computed") as no:
        nvidia.create_deployment(name, uri, flavor="triton")
    assert '"datatype": "FP32"' in str(no.value), "it shows what to write"
    assert name not in {deployment["name"] for deployment in client.list_deployments()}
    nvidia.create_deployment(name, uri, flavor="triton", config={"golden": str(golden)})
    answer = nvidia.predict(name, np.array([2.0, 3.0]))
    assert answer["outputs"]["y"].tolist() == [-2.0, -3.0]

    by_hand = tmp_path / f"{name}-by-hand"
    shutil.copytree(tmp_path / "python-entry", by_hand)
    shutil.copyfile(golden, by_hand / "golden.json")
    publish([by_hand], settings)
    assert by_hand.name not in {deployment["name"] for deployment in client.list_deployments()}
    with pytest.raises(MlflowException, match="it is no deployment"):
        client.delete_deployment(by_hand.name)
    assert client.predict(by_hand.name, {"x": [1.0, 1.0]})["outputs"]["y"].tolist() == [-1.0, -1.0]


def test_what_is_not_registered_is_refused_with_how_to_register_it(
    name: str, client: Any, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("no model")
    with mlflow.start_run() as started:
        mlflow.log_artifacts(str(tmp_path), "files")
    with pytest.raises(MlflowException, match=r"mlflow\.register_model\("):
        client.create_deployment(name, f"runs:/{started.info.run_id}/files")
    with pytest.raises(MlflowException, match="there is no registered model"):
        client.create_deployment(name, f"models:/{name}/1")
    registry = mlflow.MlflowClient()
    registry.create_registered_model(name)
    registry.create_model_version(name, f"runs:/{started.info.run_id}/files", started.info.run_id)
    with pytest.raises(MlflowException, match="has no MLmodel file"):
        client.create_deployment(name, f"models:/{name}/1")
    with pytest.raises(MlflowException, match=r"one folder with a config\.pbtxt, found none"):
        client.create_deployment(name, f"runs:/{started.info.run_id}/files", flavor="triton")
