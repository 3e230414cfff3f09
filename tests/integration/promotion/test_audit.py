"""What answered at a moment of the past, and from which run and data."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from pipeline.artifacts import PromotionRequest
from pipeline.flows.promote import promote
from pipeline.flows.rollback import rollback
from pipeline.settings import Settings

pytestmark = pytest.mark.integration

Command = Callable[..., Any]


def train(name: str, model: Any, rows: Any, *, day: str) -> tuple[str, str]:
    """Train as a data scientist does who writes down the data; gives the run and its digest."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings(), mlflow.start_run() as run:
        warnings.simplefilter("ignore")
        frame = pd.DataFrame(rows, columns=["amount", "age", "hour"]).assign(day=day)
        data = mlflow.data.from_pandas(frame, name=f"transactions-{day}")
        mlflow.log_input(data, context="training")
        mlflow.log_param("seed", day)
        mlflow.log_metric("auc", 0.75)
        mlflow.sklearn.log_model(
            model,
            name="model",
            input_example=rows,
            serialization_format="cloudpickle",
            pip_requirements=["mlflow"],
            registered_model_name=name,
        )
    return run.info.run_id, data.digest


def moment() -> str:
    """Now, with a distance to what came before and what comes next."""
    time.sleep(0.02)
    now = datetime.now(UTC).isoformat()
    time.sleep(0.02)
    return now


def test_what_answered_then_from_which_run_and_data(
    name: str,
    new_classifier: Callable[[int], Any],
    rows: Any,
    settings: Settings,
    tritonpipe: Command,
    registry: MlflowClient,
) -> None:
    trained = [train(name, new_classifier(n), rows, day=day) for n, day in ((1, "mon"), (2, "tue"))]
    assert tritonpipe("audit", name, "--at", moment()).code == 3, "nothing was ever served"
    moments = [moment()]
    for version in (1, 2):
        promote(PromotionRequest(model=name, version=version), settings)
        moments.append(moment())
    rollback(name, settings)
    moments.append(moment())
    assert tritonpipe("retire", name).code == 0
    moments.append(moment())

    def answered(at: str) -> list[dict[str, Any]]:
        done = tritonpipe("audit", name, "--at", at, "--json")
        assert done.code == 0, done.err
        found: list[dict[str, Any]] = done.data["answered"]
        assert (done.data["problems"], all(a["is_certain"] for a in found)) == ([], True)
        return found

    expected: list[list[int]] = [[], [1], [2], [1], []]
    for at, serving in zip(moments, expected, strict=True):
        found = answered(at)
        assert [a["attempt"]["version"] for a in found] == serving
        for each in found:
            attempt, run = each["attempt"], each["run"]
            run_id, digest = trained[attempt["version"] - 1]
            assert (attempt["registered_model"], attempt["run_id"]) == (name, run_id)
            assert (run["run_id"], run["metrics"]["auc"]) == (run_id, 0.75)
            day = ("mon", "tue")[attempt["version"] - 1]
            assert run["datasets"] == [f"training: transactions-{day} ({digest})"]
            tags = registry.get_model_version(name, str(attempt["version"])).tags
            assert attempt["digest"] == tags["tritonpipe.release_digest"]
    assert [answered(at)[0]["attempt"]["action"] for at in moments[1:4]] == [
        "promote", "promote", "rollback",
    ]  # fmt: skip

    told = tritonpipe("audit", name, "--at", moments[2])
    for fact in (
        f"{name}/2",
        trained[1][0],
        trained[1][1],
        "training: transactions-tue",
        "auc=0.75",
    ):
        assert fact in told.out, fact
    assert "nothing was served" in tritonpipe("audit", name, "--at", moments[4]).out
    local = datetime.fromisoformat(moments[2]).astimezone().replace(tzinfo=None)
    assert f"{name}/2" in tritonpipe("audit", name, "--at", local.isoformat()).out
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert tritonpipe("audit", name, "--at", later).code == 3
    assert tritonpipe("audit", name, "--at", "last Tuesday").code == 2

    without_mlflow = tritonpipe(
        "audit", name, "--at", moments[1], MLFLOW_TRACKING_URI="http://127.0.0.1:1"
    )
    assert without_mlflow.code == 0
    assert f"{name}/1" in without_mlflow.out
    assert "does not answer" in without_mlflow.err


def test_while_a_commit_was_under_way_either_may_have_answered(
    name: str, register: Callable[..., int], settings: Settings, tritonpipe: Command
) -> None:
    for _version in (1, 2):
        register(name)
    for version in (1, 2):
        promote(PromotionRequest(model=name, version=version), settings)
    [newest, _oldest] = tritonpipe("history", name, "--json").data["attempts"]
    begun, proven = (datetime.fromisoformat(newest[key]) for key in ("started", "ended"))
    between = (begun + (proven - begun) / 2).isoformat()
    found = tritonpipe("audit", name, "--at", between, "--json").data["answered"]
    assert [a["attempt"]["version"] for a in found] == [1, 2]
    assert not any(a["is_certain"] for a in found)
    assert tritonpipe("audit", name, "--at", between).out.count("may have answered") == 2
