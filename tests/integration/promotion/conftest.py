"""A promoted model that must go on answering, for tests of whole promotions."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from pipeline.flows.servers import open_servers
from pipeline.settings import Settings, load_settings


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A promoted model that must go on answering whatever a test breaks."""

    name: str
    model: LogisticRegression
    rows: np.ndarray[Any, Any]
    settings: Settings

    def assert_still_served(self) -> None:
        with open_servers(self.settings) as servers:
            for protocol in ("grpc", "http"):
                answer = servers.replicas[0].infer(protocol, self.name, {"X": self.rows})
                assert answer.version == 1
                probabilities = self.model.predict_proba(self.rows)
                np.testing.assert_allclose(
                    answer.outputs["probabilities"], probabilities, 1e-3, 1e-5
                )


@pytest.fixture(scope="session")
def served(
    stack: object,
    register: Callable[..., int],
    new_classifier: Callable[[int], LogisticRegression],
    rows: np.ndarray[Any, Any],
    command: list[str],
) -> ServedModel:
    model = new_classifier(3)
    name = "always-served"
    register(name, model)
    subprocess.run([*command, "promote", f"{name}/1"], check=True, capture_output=True)
    return ServedModel(name=name, model=model, rows=rows, settings=load_settings())


@pytest.fixture
def artifact_folder(stack: Any) -> Path:
    """Where the MLflow server keeps its artifacts, for tests that damage them."""
    return Path(stack.state_directory) / "mlflow"
