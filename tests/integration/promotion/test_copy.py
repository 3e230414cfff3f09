"""From one environment to the next, on the real MLflow."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from pipeline.artifacts import PromotionRequest
from pipeline.registries.mlflow import MlflowRegistry
from pipeline.stack.environment import ensure_server_environment
from pipeline.stack.part import http_status

pytestmark = pytest.mark.integration


@pytest.fixture
def original(name: str, register: Callable[..., int], registry: MlflowClient) -> str:
    """A version with a tag of its author and one of ours, and an alias."""
    register(name)
    registry.set_model_version_tag(name, "1", "validation_status", "approved")
    registry.set_model_version_tag(name, "1", "tritonpipe.state", "serving")
    registry.set_registered_model_alias(name, "champion", "1")
    return name


def downloaded(client: MlflowClient, name: str, version: int, folder: Path) -> str:
    folder.mkdir()
    registry = MlflowRegistry(client.tracking_uri)
    found = registry.resolve(PromotionRequest(model=name, version=version))
    return registry.fetch(found, folder).digest


def test_a_copy_has_the_same_bytes_and_the_authors_tags_and_twice_is_once(
    tritonpipe: Callable[..., Any], original: str, registry: MlflowClient, tmp_path: Path
) -> None:
    target = f"{original}-prod"
    for is_new in (True, False):
        done = tritonpipe("copy", f"{original}@champion", target, "--alias", "champion", "--json")
        assert (done.code, done.data["version"], done.data["is_new"]) == (0, 1, is_new)
    tags = registry.get_model_version(target, "1").tags
    assert tags["validation_status"] == "approved"
    assert tags["tritonpipe.copied_from"].endswith(f" {original}/1")
    assert "tritonpipe.state" not in tags
    assert registry.get_model_version_by_alias(target, "champion").version == "1"
    assert downloaded(registry, target, 1, tmp_path / "a") == (
        downloaded(registry, original, 1, tmp_path / "b")
    )
    assert tritonpipe("copy", f"{original}/1", original).code == 3
    assert tritonpipe("copy", f"{original}/9", target).code == 3


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[MlflowClient]:
    """Another MLflow server."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(ensure_server_environment().python), "-P", "-m", "mlflow", "server"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", "sqlite:///mlflow.db"]
    command += ["--artifacts-destination", "./artifacts", "--serve-artifacts"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )
    try:
        deadline = time.monotonic() + 120.0
        while http_status(port, "/health")[0] != 200:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        address = f"http://127.0.0.1:{port}"
        yield MlflowClient(address, registry_uri=address)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_copy_goes_to_another_server_whole_and_once(
    tritonpipe: Callable[..., Any],
    original: str,
    registry: MlflowClient,
    elsewhere: MlflowClient,
    tmp_path: Path,
) -> None:
    arguments = ("copy", f"{original}/1", "fraud", "--to", elsewhere.tracking_uri, "--json")
    for is_new in (True, False):
        done = tritonpipe(*arguments, "--alias", "champion")
        assert (done.code, done.data["version"], done.data["is_new"]) == (0, 1, is_new)
    found = elsewhere.get_model_version_by_alias("fraud", "champion")
    assert found.tags["validation_status"] == "approved"
    assert "tritonpipe.state" not in found.tags
    assert downloaded(elsewhere, "fraud", 1, tmp_path / "a") == (
        downloaded(registry, original, 1, tmp_path / "b")
    )
