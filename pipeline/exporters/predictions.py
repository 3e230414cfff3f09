"""What classifiers and regressors predict, under the names and in the types that clients see.

Shared by the exporters of estimators. Guarantees: the values are the estimator's own; a label is
never rounded to fit the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.logged import described
from pipeline.samples import Array
from pipeline.tensors import TensorSpec

LABEL: Final = "label"
PROBABILITIES: Final = "probabilities"
PREDICTION: Final = "prediction"

_METHODS: Final = {LABEL: "predict", PROBABILITIES: "predict_proba", PREDICTION: "predict"}


def predictions(
    estimator: Any, original: Any, names: Sequence[str], source: SourceModel
) -> dict[str, Array]:
    """Ask the estimator for these outputs.

    Raises:
        ModelError: It cannot predict on these rows, or predicts several labels for each.
    """
    predicted = {}
    for name in names:
        try:
            values = getattr(estimator, _METHODS[name])(original)
        except Exception as error:
            raise ModelError(
                f"{source.version} cannot predict its own input example: {described(error)}",
                hint="log the model again with an input example that it accepts",
            ) from error
        if name == LABEL and np.ndim(values) == 2 and np.shape(values)[1] == 1:
            values = np.asarray(values)[:, 0]  # the way of CatBoost with several classes
        if isinstance(values, list) or (name == LABEL and np.ndim(values) != 1):
            raise ModelError(
                f"{source.version} predicts several labels per row; one is supported",
                hint="log one model per label",
            )
        predicted[name] = np.asarray(values)
    return predicted


def as_in_graph(values: Array, spec: TensorSpec, source: SourceModel) -> Array:
    """A prediction in the element type and rank of the graph's output.

    Raises:
        ModelError: A label is not kept exactly by the graph's type, or the shapes do not fit.
    """
    array = values.reshape(-1, 1) if values.ndim == 1 and len(spec.shape) == 2 else values
    fits = array.ndim == len(spec.shape) and all(
        size in (-1, found) for size, found in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise ModelError(
            f"output {spec.name!r} of {source.version} has shape {list(spec.shape)} in the graph, "
            f"the estimator predicts {list(values.shape)}"
        )
    if spec.data_type.numpy == "object":
        return array.astype(str).astype(object)
    cast = array.astype(spec.data_type.numpy)
    if not spec.data_type.is_floating and not np.array_equal(cast, array):
        raise ModelError(
            f"the labels of {source.version} are {array.dtype}, which the graph cannot keep as "
            f"{spec.data_type.value}",
            hint="train with whole numbers or strings as labels",
        )
    return cast
