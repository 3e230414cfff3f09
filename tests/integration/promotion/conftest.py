"""Registered models and a command line, for tests of whole promotions."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from sklearn.linear_model import LogisticRegression

from pipeline.flows.servers import Servers, open_servers
from pipeline.settings import Settings, load_settings

ROWS = np.array([[0.1, 0.2, 0.3], [1.0, -1.0, 2.0], [5.0, 0.0, -3.0]], dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def command() -> list[str]:
    return [sys.executable, "-P", "-m", "pipeline"]


@pytest.fixture
def tritonpipe(stack: object, command: list[str]) -> Callable[..., Done]:
    """Run the command line with some variables changed; None removes one."""

    def run(*arguments: str, **changes: str | None) -> Done:
        environment = {k: v for k, v in (os.environ | changes).items() if v is not None}
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, env=environment, timeout=200
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    return run


@pytest.fixture
def settings(stack: object) -> Settings:
    return load_settings()


@pytest.fixture
def servers(settings: Settings) -> Iterator[Servers]:
    with open_servers(settings) as opened:
        yield opened


@pytest.fixture
def registry(stack: object) -> MlflowClient:
    return MlflowClient()


@pytest.fixture
def name(servers: Servers) -> Iterator[str]:
    """A name that no other test uses; what is published under it goes away with the test.

    Every entry makes each of Triton's polls longer, and the other tests with it.
    """
    name = f"t-{uuid.uuid4().hex[:10]}"
    yield name
    servers.repository.delete([f"{name}/config.pbtxt"])
    while any(v.state == "LOADING" for v in servers.triton.versions(name).values()):
        time.sleep(0.2)
    servers.repository.delete([o.key for o in servers.repository.list_folder(name)])


@pytest.fixture(scope="session")
def register(stack: object) -> Callable[..., int]:
    """Log a model as a user does and register it; gives the version."""

    def log(name: str, model: Any = None, flavor: str = "sklearn", **options: Any) -> int:
        options.setdefault("name", "model")
        if flavor == "sklearn":
            model = classifier(seed=0) if model is None else model
            options.setdefault("input_example", ROWS)
            options.setdefault("serialization_format", "cloudpickle")
        if flavor != "pyfunc":
            # Otherwise MLflow loads the model in another process to find its packages.
            options.setdefault("pip_requirements", ["mlflow"])
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        with warnings.catch_warnings(), mlflow.start_run():
            warnings.simplefilter("ignore")
            mlflow.log_metric("accuracy", 0.5)
            positional = () if model is None else (model,)
            info = getattr(mlflow, flavor).log_model(
                *positional, registered_model_name=name, **options
            )
        return int(info.registered_model_version)

    return log


def classifier(seed: int) -> LogisticRegression:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    return LogisticRegression().fit(x, (x @ rng.normal(size=3) > 0).astype(np.int64))


@pytest.fixture(scope="session")
def new_classifier() -> Callable[[int], LogisticRegression]:
    return classifier


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A promoted model that must go on answering whatever a test breaks."""

    name: str
    model: LogisticRegression
    settings: Settings

    def assert_still_served(self) -> None:
        with open_servers(self.settings) as servers:
            for protocol in ("grpc", "http"):
                answer = servers.triton.infer(protocol, self.name, {"X": ROWS})
                assert answer.version == 1
                probabilities = self.model.predict_proba(ROWS)
                np.testing.assert_allclose(
                    answer.outputs["probabilities"], probabilities, 1e-3, 1e-5
                )


@pytest.fixture(scope="session")
def served(stack: object, register: Callable[..., int], command: list[str]) -> ServedModel:
    model = classifier(seed=3)
    name = "always-served"
    register(name, model)
    subprocess.run([*command, "promote", f"{name}/1"], check=True, capture_output=True)
    return ServedModel(name=name, model=model, settings=load_settings())


@pytest.fixture
def rows() -> np.ndarray[Any, Any]:
    return ROWS


@pytest.fixture
def artifact_folder(stack: Any) -> Path:
    """Where the MLflow server keeps its artifacts, for tests that damage them."""
    return Path(stack.state_directory) / "mlflow"
