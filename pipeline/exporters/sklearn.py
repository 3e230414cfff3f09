"""The ``sklearn`` flavor: estimators and pipelines of scikit-learn, through skl2onnx.

Guarantees: clients send a column under the column's own name; numbers travel as FP32, and a whole
number that FP32 cannot hold is refused rather than rounded; they travel as FP64 only to trees, and
only if FP32 changes their answers; the expected outputs are what the estimator itself
predicts on the logged example, in its own precision and with its own columns.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.artifacts import ONNX_FILE, SourceModel
from pipeline.errors import DependencyError, ModelError
from pipeline.exporters import Exported
from pipeline.exporters.boosters import installed_packages
from pipeline.exporters.columns import Features, features
from pipeline.exporters.logged import example_or_generated, expect_inputs_logged, loaded
from pipeline.exporters.precision import needs_fp64
from pipeline.exporters.predictions import (
    LABEL,
    PREDICTION,
    PROBABILITIES,
    as_in_graph,
    predictions,
)
from pipeline.exporters.sklearn_graphs import graph_from_sklearn
from pipeline.exporters.sklearn_trees import (
    ends_in_trees,
    graph_of_trees,
    library_of,
    narrow_inputs,
)
from pipeline.onnx_graph import onnx_model, rename_tensors
from pipeline.samples import Array, Samples

_PACKAGES: Final = ("onnx", "scikit-learn", "skl2onnx")


class SklearnExporter:
    """A :class:`pipeline.exporters.Exporter` for classifiers and regressors."""

    flavor: ClassVar[str] = "sklearn"

    def export(self, source: SourceModel, destination: Path) -> Exported:
        """Write ``onnx/model.onnx``; see the protocol."""
        expect_inputs_logged(source)
        try:
            import mlflow.sklearn
            import skl2onnx  # noqa: F401  asked for here, so that its absence has a name
        except ImportError as error:
            raise DependencyError(
                f"exporting the sklearn flavor needs {error.name}",
                hint="pip install 'tritonpipe[sklearn]'",
            ) from error

        estimator = loaded(source, lambda: mlflow.sklearn.load_model(str(source.path)))
        estimator = getattr(estimator, "best_estimator_", estimator)  # of a search
        predicted = _predicted_by(estimator, source)
        example, origin = example_or_generated(source)
        by_name = _picks_columns_by_name(estimator)
        taken = features(example, source, by_name=by_name)
        expected = predictions(estimator, taken.original, predicted, source)
        graph, is_double = _graph(estimator, taken, predicted, source)
        _name_tensors(graph, list(taken.inputs), predicted, source)
        _declare_widths(graph, expected)

        library = library_of(estimator)
        packages = (*_PACKAGES, *(installed_packages(library) if library else ()))
        folder = destination / "onnx"
        folder.mkdir()
        (folder / ONNX_FILE).write_bytes(graph.SerializeToString(deterministic=True))
        onnx = onnx_model(folder, source=source, flavor=self.flavor, packages=packages)

        def ask(rows: Any) -> Samples:
            asked = features(rows, source, by_name=by_name, is_double=is_double)
            answers = predictions(estimator, asked.original, predicted, source)
            outputs = {
                spec.name: as_in_graph(answers[spec.name], spec, source) for spec in onnx.outputs
            }
            return Samples(inputs=asked.inputs, outputs=outputs)

        return Exported(onnx=onnx, example=example, origin=origin + taken.note, ask=ask)


def _graph(
    estimator: Any, taken: Features, predicted: tuple[str, ...], source: SourceModel
) -> tuple[Any, bool]:
    """The graph, and whether clients must send FP64 because FP32 would change the predictions."""
    if not ends_in_trees(estimator):
        return graph_from_sklearn(estimator, taken.inputs, source), False
    graph, takes_double = graph_of_trees(estimator, taken, source)
    if not takes_double:
        return graph, False
    if needs_fp64(taken.original, lambda rows: predictions(estimator, rows, predicted, source)):
        return graph, True
    narrow_inputs(graph)
    return graph, False


def _predicted_by(estimator: Any, source: SourceModel) -> tuple[str, ...]:
    """Names of the outputs that this estimator has."""
    from sklearn.base import is_classifier, is_regressor

    if is_classifier(estimator):
        has_probabilities = hasattr(estimator, "predict_proba")
        return (LABEL, PROBABILITIES) if has_probabilities else (LABEL,)
    if is_regressor(estimator):
        return (PREDICTION,)
    raise ModelError(
        f"{source.version} is a {type(estimator).__name__}, which is neither a classifier nor a "
        "regressor; these two are supported, alone or at the end of a Pipeline",
        hint="put a classifier or regressor at the end of the pipeline, or export to ONNX yourself "
        "and log it with mlflow.onnx",
    )


def _picks_columns_by_name(estimator: Any) -> bool:
    from sklearn.compose import ColumnTransformer

    parts = [estimator, *estimator.get_params(deep=True).values()]
    picked = (
        columns
        for part in parts
        if isinstance(part, ColumnTransformer)
        for _, _, columns in part.transformers
    )
    return any(_is_by_name(columns) for columns in picked)


def _is_by_name(columns: Any) -> bool:
    # A callable picks by the names or types of a DataFrame's columns.
    if callable(columns) or isinstance(columns, str):
        return True
    if isinstance(columns, slice):
        return isinstance(columns.start, str) or isinstance(columns.stop, str)
    return any(isinstance(item, str) for item in np.atleast_1d(np.asarray(columns, dtype=object)))


def _name_tensors(
    graph: Any, inputs: list[str], outputs: tuple[str, ...], source: SourceModel
) -> None:
    """Undo the renaming of columns by skl2onnx, and name what is predicted."""
    found = len(graph.graph.input), len(graph.graph.output)
    if found[0] != len(inputs) or found[1] < len(outputs):
        raise ModelError(
            f"the graph of {source.version} has {found[0]} inputs and {found[1]} outputs, expected "
            f"{len(inputs)} and {len(outputs)}"
        )
    # Without predict_proba, skl2onnx adds scores that the estimator has no prediction for.
    del graph.graph.output[len(outputs) :]
    rename_tensors(graph, inputs, outputs)


def _declare_widths(graph: Any, expected: dict[str, Array]) -> None:
    """Say how many columns an output has: skl2onnx says 1 for forests with several targets."""
    for value in graph.graph.output:
        sizes, width = value.type.tensor_type.shape.dim, expected[value.name].shape[1:]
        if len(sizes) == 2 and len(width) == 1:
            sizes[1].dim_value = width[0]
