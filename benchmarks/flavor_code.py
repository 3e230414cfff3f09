"""Kinds of models that are served by their own code, packed with their own packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
from flavor_models import CUSTOMERS, Kind
from mlflow.models import infer_signature

from pipeline.artifacts import SourceModel
from pipeline.checks.gate import LARGEST_BATCH
from pipeline.checks.tolerances import Tolerances
from pipeline.flows.packing import check_packed_in_child, pack_in_child, packages_of
from pipeline.flows.progress import silent
from pipeline.flows.worker import Limits
from pipeline.packed_models import PackedExport
from pipeline.reports import Report
from pipeline.settings import Settings

# As in a notebook: the class travels with the model.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

FLAVOR = "pyfunc"
_TIME_AND_PLAN = CUSTOMERS[["plan", "age (years)"]].head(40)


class Prices(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A rule on text and numbers."""

    def predict(self, _context: Any, model_input: Any) -> Any:
        """A column of each."""
        factor = model_input["plan"].map({"plus": 2.0}).fillna(1.0)
        return pd.DataFrame(
            {"price": model_input["age (years)"] * factor, "plan": model_input["plan"]}
        )


class Sums(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A function of a tensor."""

    def predict(self, _context: Any, model_input: Any) -> Any:
        """One number for each row."""
        return np.asarray(model_input).sum(axis=(1, 2))


class Dice(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Answers differently whenever it is asked."""

    def predict(self, _context: Any, model_input: Any) -> Any:
        """Noise."""
        return np.random.default_rng().normal(size=len(model_input))


def code_kinds() -> Iterator[Kind]:
    """Of ``python_function`` alone."""
    tensor = np.arange(48.0).reshape(4, 3, 4)

    def kind(name: str, model: Any, example: Any, refusal: str = "") -> Kind:
        def save(folder: Path) -> None:
            mlflow.pyfunc.save_model(
                folder,
                python_model=model,
                signature=infer_signature(example),
                input_example=example,
                pip_requirements=["mlflow", "numpy", "pandas"],
            )

        return Kind(flavor=FLAVOR, name=name, save=save, refusal=refusal)

    yield kind("PythonModel on columns of text and numbers", Prices(), _TIME_AND_PLAN)
    yield kind("PythonModel on a tensor", Sums(), tensor)
    yield kind("PythonModel that throws dice", Dice(), _TIME_AND_PLAN, "differently")


def packed(source: SourceModel, folder: Path) -> tuple[PackedExport, Report]:
    """Pack a model and compare, as its promotion does."""
    settings = Settings(pyfunc="on")
    packages = packages_of(source, settings, silent)
    limits = Limits(seconds=settings.export_seconds)
    export = pack_in_child(source, packages, folder / "exported", settings=settings, limits=limits)
    report = check_packed_in_child(
        export,
        cases=folder / "cases",
        tolerances=Tolerances(),
        max_batch_size=LARGEST_BATCH,
        limits=limits,
    )
    return export, report
