"""Fifty models whose aliases are set at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from pipeline.flows.servers import Servers

pytestmark = pytest.mark.integration

MODELS = 50
KINDS = 5


@pytest.fixture
def models(
    name: str,
    register: Callable[..., int],
    new_classifier: Callable[[int], Any],
    registry: MlflowClient,
) -> Iterator[dict[str, Any]]:
    """Registered models by name; several of them have the same artifacts."""
    kinds = [new_classifier(seed) for seed in range(KINDS)]
    for kind, model in enumerate(kinds):
        register(f"{name}-{kind}", model)
    for number in range(KINDS, MODELS):
        registry.copy_model_version(f"models:/{name}-{number % KINDS}/1", f"{name}-{number}")
    yield {f"{name}-{number}": kinds[number % KINDS] for number in range(MODELS)}
    for number in range(MODELS):
        registry.delete_registered_model(f"{name}-{number}")


def test_all_are_served_each_with_its_own_answers(
    watching: Callable[..., Any],
    models: dict[str, Any],
    name: str,
    registry: MlflowClient,
    servers: Servers,
    rows: Any,
) -> None:
    watcher = watching("--model", f"{name}-*")
    watcher.wait_for(kind="leading")
    for model in models:
        registry.set_registered_model_alias(model, "champion", 1)
    for number in range(MODELS):
        watcher.wait_for(number + 1, kind="ended", outcome="promoted")
    for model, source in models.items():
        answer = servers.replicas[0].infer("grpc", model, {"X": rows})
        np.testing.assert_allclose(
            answer.outputs["probabilities"], source.predict_proba(rows), 1e-3, 1e-5
        )
    assert len(watcher.told(kind="started")) == MODELS  # each once, and none of them failed
