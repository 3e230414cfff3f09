"""Registered models and a command line, for tests of whole promotions."""

from __future__ import annotations

import logging
import subprocess
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from sklearn.linear_model import LogisticRegression

from pipeline.flows.servers import open_servers
from pipeline.settings import Settings, load_settings

ROWS = np.array([[0.1, 0.2, 0.3], [1.0, -1.0, 2.0], [5.0, 0.0, -3.0]], dtype=np.float32)


@pytest.fixture
def registry(stack: object) -> MlflowClient:
    return MlflowClient()


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
                answer = servers.replicas[0].infer(protocol, self.name, {"X": ROWS})
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
