"""Answers of a deployment, as users of NVIDIA's plugin and of MLflow read them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from mlflow.deployments import PredictionsResponse

from pipeline.deployments.errors import invalid
from pipeline.samples import Array

OUTPUTS: Final = "outputs"


class Predictions(PredictionsResponse):  # type: ignore[misc]  # MLflow ships no types
    """``{"outputs": {NAME: array}}``, with the methods of MLflow's response."""

    @classmethod
    def from_outputs(cls, outputs: Mapping[str, Array]) -> Predictions:
        """The answers of one request, by name of the output."""
        return cls({OUTPUTS: dict(outputs)})

    def get_predictions(self, predictions_format: str = "dataframe", dtype: Any = None) -> Any:
        """All outputs as columns of a DataFrame, or the only output as an array.

        Raises:
            MlflowException: The format is neither ``dataframe`` nor ``ndarray``; or several outputs
                should become one array.
        """
        outputs: dict[str, Array] = self[OUTPUTS]
        if predictions_format == "dataframe":
            import pandas as pd

            return pd.DataFrame({name: _column(array) for name, array in outputs.items()})
        if predictions_format != "ndarray":
            raise invalid(f"{predictions_format!r} is neither 'dataframe' nor 'ndarray'")
        if len(outputs) != 1:
            raise invalid(
                f"the model has the outputs {', '.join(outputs)}: take one of them from "
                f"predictions[{OUTPUTS!r}]"
            )
        return np.array(next(iter(outputs.values())), dtype)

    def to_json(self, path: str | None = None) -> str | None:
        """As JSON: nested lists, and ``null`` for what is no number; into a file if one is named.

        Returns:
            The text, or None if it was written.
        """
        outputs = {name: _plain(array.tolist()) for name, array in self[OUTPUTS].items()}
        text = json.dumps({OUTPUTS: outputs}, allow_nan=False)
        if path is None:
            return text
        Path(path).write_text(text, encoding="utf-8")
        return None


def _column(array: Array) -> Any:
    """One value for each row; rows of several values become lists."""
    if array.ndim == 0:
        return [array.item()]
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    return array if array.ndim == 1 else array.tolist()


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
