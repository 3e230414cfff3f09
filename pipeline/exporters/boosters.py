"""From a boosted ensemble to its graph and its exported model, the same way for every library.

Guarantees: clients send one FP32 matrix, or one of FP64 where FP32 changes what the library
predicts; classifiers give ``label`` and ``probabilities``, everything else gives ``prediction``,
what the library itself predicts by default; what a graph cannot express is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.artifacts import ONNX_FILE, SourceModel
from pipeline.errors import DependencyError, ModelError
from pipeline.exporters import Exported
from pipeline.exporters.columns import MATRIX, features
from pipeline.exporters.logged import example_or_generated
from pipeline.exporters.precision import needs_fp64
from pipeline.exporters.predictions import (
    LABEL,
    PREDICTION,
    PROBABILITIES,
    as_in_graph,
    predictions,
)
from pipeline.exporters.tree_graphs import Ensemble, Nodes, Tensor, add_ensemble
from pipeline.onnx_graph import onnx_model
from pipeline.samples import Array, Samples

_EPSILON_OF_ZERO: Final = 1e-35
"""Up to here LightGBM takes numbers for zero."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Booster:
    """Trees, and what their library makes of the sums of their leaves.

    Attributes:
        ensemble: The trees.
        link: A key of :data:`LINKS`.
        classes: Labels of a classifier in the order of its probabilities; None for everything else.
        missing: The number that stands for a missing value, beside NaN.
        zero_is_missing: Columns in which zero is a missing value.
        rounds_to_fp32: Whether values are rounded to FP32 before they are compared.
        divisor: What the sums are divided by: 1, or the number of trees if they vote.
    """

    ensemble: Ensemble
    link: str
    classes: Array | None = None
    missing: float = np.nan
    zero_is_missing: Sequence[int] = ()
    rounds_to_fp32: bool = False
    divisor: int = 1

    @property
    def reads_fp64(self) -> bool:
        """Whether a value may be lost on the way to the first comparison if it comes as FP32."""
        return self.ensemble.is_double and not self.rounds_to_fp32


def needed(package: str, error: ImportError) -> DependencyError:
    """The error for a library that is not installed."""
    return DependencyError(
        f"exporting the {package} flavor needs {error.name}",
        hint="pip install 'tritonpipe[boosting]'",
    )


def unsupported(source: SourceModel, what: str, instead: str) -> ModelError:
    """The error for a model that no graph can express."""
    return ModelError(
        f"{source.version} {what}",
        hint=f"{instead}, or export to ONNX yourself and log it with mlflow.onnx",
    )


def export_booster(
    booster: Booster,
    model: Any,
    *,
    flavor: str,
    source: SourceModel,
    destination: Path,
) -> Exported:
    """Write the graph and keep the original at hand.

    Args:
        booster: What the graph computes.
        model: The original, with ``predict``, and ``predict_proba`` if it has classes; both take
            rows as they were logged.
        flavor: The exporter, which has the name of its library.
        source: The fetched model.
        destination: An empty folder.
    """
    names = (PREDICTION,) if booster.classes is None else (LABEL, PROBABILITIES)

    def predict(rows: Any) -> dict[str, Array]:
        return predictions(model, rows, names, source)

    example, origin = example_or_generated(source)
    _one_matrix(example, booster, source, is_double=False)
    predict(example)  # an original that cannot predict is told before anything is made of it
    is_double = booster.reads_fp64 and needs_fp64(example, predict)

    folder = destination / "onnx"
    folder.mkdir()
    graph = booster_graph(booster, source.version.name, is_double=is_double)
    (folder / ONNX_FILE).write_bytes(graph.SerializeToString(deterministic=True))
    tools = ("onnx", *installed_packages(flavor))
    onnx = onnx_model(folder, source=source, flavor=flavor, packages=tools)

    def ask(rows: Any) -> Samples:
        answers = predict(rows)
        return Samples(
            inputs=_one_matrix(rows, booster, source, is_double=is_double),
            outputs={
                spec.name: as_in_graph(answers[spec.name], spec, source) for spec in onnx.outputs
            },
        )

    return Exported(onnx=onnx, example=example, origin=origin, ask=ask)


def _one_matrix(
    rows: Any, booster: Booster, source: SourceModel, *, is_double: bool
) -> Mapping[str, Array]:
    taken = features(rows, source, by_name=False, is_double=is_double).inputs
    if list(taken) != [MATRIX] or taken[MATRIX].dtype == object:
        raise unsupported(
            source,
            "was logged with text columns, which its library takes as pandas categories only; a "
            "request cannot carry these",
            "train on whole numbers instead of categories",
        )
    found, expected = taken[MATRIX].shape[1], booster.ensemble.features
    if found != expected:
        raise ModelError(
            f"the inputs of {source.version} have {found} columns, the model was trained on "
            f"{expected}",
            hint="log the model again with an input example of its own columns",
        )
    return taken


def installed_packages(library: str) -> tuple[str, ...]:
    """The distributions that provide a library here; XGBoost has one without GPU code too."""
    return tuple(name for name in (library, f"{library}-cpu") if _is_installed(name))


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def booster_graph(booster: Booster, name: str, *, is_double: bool) -> Any:
    """The graph of a booster alone, from the FP32 or FP64 matrix ``X``."""
    from onnx import TensorProto

    nodes = Nodes()
    outputs = add_booster(nodes, MATRIX, booster)
    kind = TensorProto.DOUBLE if is_double else TensorProto.FLOAT
    matrix = Tensor(MATRIX, kind, (None, booster.ensemble.features))
    return nodes.model(name, [matrix], outputs)


def add_booster(nodes: Nodes, matrix: str, booster: Booster) -> list[Tensor]:
    """Append a booster; gives its outputs.

    Args:
        nodes: The graph to append to.
        matrix: Name of the FP32 or FP64 matrix of its columns.
        booster: What to append.
    """
    from onnx import TensorProto

    matrix = _with_missing(nodes, matrix, booster)
    sums = add_ensemble(nodes, matrix, booster.ensemble)
    if booster.divisor != 1:
        sums = nodes.add("Div", sums, nodes.constant(booster.divisor, np.float32))
    linked = LINKS[booster.link](nodes, sums)
    width = len(booster.ensemble.base)
    if booster.classes is None:
        columns = 1 if booster.link == "index of the largest" else width
        nodes.add("Identity", linked, output=PREDICTION)
        return [Tensor(PREDICTION, TensorProto.FLOAT, (None, columns))]
    if width == 1:
        one = nodes.constant(1, np.float32)
        linked = nodes.add("Concat", nodes.add("Sub", one, linked), linked, axis=1)
    nodes.add("Identity", linked, output=PROBABILITIES)
    largest = nodes.add("ArgMax", PROBABILITIES, axis=1, keepdims=0)
    is_text = booster.classes.dtype.kind in "OUST"
    labels = (
        nodes.text([str(label) for label in booster.classes])
        if is_text
        else nodes.constant(booster.classes, np.int64)
    )
    nodes.add("Gather", labels, largest, axis=0, output=LABEL)
    return [
        Tensor(LABEL, TensorProto.STRING if is_text else TensorProto.INT64, (None,)),
        Tensor(PROBABILITIES, TensorProto.FLOAT, (None, len(booster.classes))),
    ]


def _with_missing(nodes: Nodes, matrix: str, booster: Booster) -> str:
    """The matrix in the type that the trees read, with NaN for every value that is missing."""
    kind = np.float64 if booster.ensemble.is_double else np.float32
    if booster.rounds_to_fp32:
        matrix = nodes.cast(matrix, np.float32)
    matrix = nodes.cast(matrix, kind)
    if not np.isnan(booster.missing):
        is_missing = nodes.add("Equal", matrix, nodes.constant(booster.missing, kind))
        matrix = nodes.add("Where", is_missing, nodes.constant(np.nan, kind), matrix)
    if booster.zero_is_missing:
        # Below this bound a value is zero; no value is below the bound of the other columns.
        bounds = np.full((1, booster.ensemble.features), -1.0)
        bounds[0, list(booster.zero_is_missing)] = _EPSILON_OF_ZERO
        is_zero = nodes.add("LessOrEqual", nodes.add("Abs", matrix), nodes.constant(bounds, kind))
        matrix = nodes.add("Where", is_zero, nodes.constant(np.nan, kind), matrix)
    return matrix


def _identity(_nodes: Nodes, sums: str) -> str:
    return sums


def _sigmoid(nodes: Nodes, sums: str) -> str:
    return nodes.add("Sigmoid", sums)


def _softmax(nodes: Nodes, sums: str) -> str:
    return nodes.add("Softmax", sums, axis=1)


def _exponential(nodes: Nodes, sums: str) -> str:
    return nodes.add("Exp", sums)


def _is_positive(nodes: Nodes, sums: str) -> str:
    return nodes.cast(nodes.add("Greater", sums, nodes.constant(0, np.float32)), np.float32)


def _index_of_largest(nodes: Nodes, sums: str) -> str:
    return nodes.cast(nodes.add("ArgMax", sums, axis=1, keepdims=1), np.float32)


def _signed_square(nodes: Nodes, sums: str) -> str:
    return nodes.add("Mul", sums, nodes.add("Abs", sums))


def _softplus(nodes: Nodes, sums: str) -> str:
    return nodes.add("Softplus", sums)


LINKS: Final[Mapping[str, Callable[[Nodes, str], str]]] = {
    "identity": _identity,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "exponential": _exponential,
    "is positive": _is_positive,
    "index of the largest": _index_of_largest,
    "signed square": _signed_square,
    "softplus": _softplus,
}
"""From the sums of the leaves to what the library predicts."""
