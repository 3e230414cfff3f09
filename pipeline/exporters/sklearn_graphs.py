"""From scikit-learn's estimators to graphs, through skl2onnx.

Guarantees: no maps; operator sets that every Triton of the last two years has, in an order that
does not change from process to process.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.logged import described
from pipeline.exporters.tree_graphs import TARGET_OPSET
from pipeline.samples import Array


def graph_from_sklearn(
    estimator: Any, inputs: Mapping[str, Array], source: SourceModel, *, is_double: bool = False
) -> Any:
    """Convert a fitted estimator, transformer or pipeline.

    Args:
        estimator: Of scikit-learn.
        inputs: What it is fed with; names, widths and whether they are text are taken from it.
        source: For messages.
        is_double: Whether numbers are FP64 throughout.

    Raises:
        ModelError: skl2onnx cannot convert it.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    numbers = DoubleTensorType if is_double else FloatTensorType
    kinds = [
        (name, (StringTensorType if array.dtype == object else numbers)([None, array.shape[1]]))
        for name, array in inputs.items()
    ]
    converters = _exact_converters() if is_double else {}

    def convert(options: dict[Any, Any]) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside skl2onnx; nobody can act on them
            return convert_sklearn(
                estimator,
                source.version.name,
                kinds,
                options=options,
                target_opset=TARGET_OPSET,
                custom_conversion_functions=converters,
            )

    try:
        try:
            graph = convert({"zipmap": False})
        except NameError:
            # skl2onnx refuses the option for estimators whose outputs are plain tensors anyway; at
            # the end of a Pipeline it sets it by itself, unless that step has options of its own.
            steps = getattr(estimator, "steps", [("", estimator)])
            graph = convert({id(steps[-1][1]): {}})
    except Exception as error:
        raise ModelError(
            f"skl2onnx cannot convert {source.version}, {anatomy(estimator)}: {described(error)}",
            hint="replace the step that is not supported (https://onnx.ai/sklearn-onnx/"
            "supported.html), or export to ONNX yourself and log it with mlflow.onnx",
        ) from error
    sort_opsets(graph)
    return graph


def anatomy(estimator: Any) -> str:
    """The kind of an estimator and of its steps, for messages."""
    steps = [type(step).__name__ for _, step in getattr(estimator, "steps", [])]
    name = type(estimator).__name__
    return f"a {name} of {', '.join(steps)}" if steps else f"a {name}"


def sort_opsets(graph: Any) -> None:
    """skl2onnx keeps them in a set, whose order changes with the seed of Python's hashes."""
    from onnx.helper import make_opsetid

    opsets = sorted((opset.domain, opset.version) for opset in graph.opset_import)
    del graph.opset_import[:]
    graph.opset_import.extend(make_opsetid(domain, version) for domain, version in opsets)


def _exact_converters() -> dict[Any, Any]:
    from sklearn.impute import SimpleImputer

    return {SimpleImputer: _impute}


def _impute(scope: Any, operator: Any, container: Any) -> None:
    """Numbers in place of NaN, as 64-bit numbers; ONNX Runtime's own imputer has 32 bits only."""
    from skl2onnx.proto import onnx_proto

    imputer, values = operator.raw_operator, operator.inputs[0].full_name
    statistics = np.asarray(imputer.statistics_)
    is_plain = statistics.dtype.kind == "f" and not np.isnan(statistics).any()
    if not is_plain or len(operator.inputs) > 1 or imputer.add_indicator:
        raise NotImplementedError("SimpleImputer of other than one block of numbers")
    if not (isinstance(imputer.missing_values, float) and np.isnan(imputer.missing_values)):
        raise NotImplementedError("SimpleImputer of other missing values than NaN")
    constant, is_missing = (scope.get_unique_variable_name(name) for name in ("fill", "missing"))
    shape = [1, len(statistics)]
    container.add_initializer(constant, onnx_proto.TensorProto.DOUBLE, shape, statistics)
    container.add_node("IsNaN", values, is_missing, op_version=13)
    output = operator.outputs[0].full_name
    container.add_node("Where", [is_missing, constant, values], output, op_version=16)
