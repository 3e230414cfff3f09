"""What is kept of an MLflow run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pipeline.registries import Run


def run_of(found: Any, experiment: str, address: str) -> Run:
    """A run as MLflow gives it.

    Args:
        found: The run.
        experiment: Name of its experiment.
        address: Of the MLflow server, without credentials.
    """
    started = datetime.fromtimestamp(found.info.start_time / 1000, UTC)
    return Run(
        run_id=found.info.run_id,
        name=found.info.run_name or "",
        experiment=experiment,
        user=found.data.tags.get("mlflow.user", ""),
        started=started.isoformat(timespec="seconds"),
        parameters=dict(found.data.params),
        metrics=dict(found.data.metrics),
        datasets=_datasets(found),
        page=_page(found, address),
    )


def _page(found: Any, address: str) -> str:
    if not address.startswith("http"):
        return ""
    place = f"#/experiments/{found.info.experiment_id}/runs/{found.info.run_id}"
    return f"{address.rstrip('/')}/{place}"


def _datasets(run: Any) -> tuple[str, ...]:
    inputs = run.inputs.dataset_inputs if run.inputs else ()
    return tuple(
        f"{next((t.value for t in each.tags if t.key == 'mlflow.data.context'), 'dataset')}: "
        f"{each.dataset.name} ({each.dataset.digest})"
        for each in inputs
    )
