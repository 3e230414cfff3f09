"""Pipelines that end in trees, exact to the split.

A scaler computed in FP32 moves a value across a split, and the answer is then that of another leaf.
Guarantees: steps before trees are computed in FP64, as scikit-learn computes them, and the trees
get the type that they compare in; where skl2onnx has no FP64 form of a step, the whole is computed
in FP32 as any other pipeline is, and the comparison with the original decides.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.boosters import Booster, booster_graph
from pipeline.exporters.columns import MATRIX, Features
from pipeline.exporters.forests import booster_from_sklearn
from pipeline.exporters.sklearn_graphs import graph_from_sklearn
from pipeline.exporters.tree_graphs import TARGET_OPSET

_LIBRARIES: Final = ("xgboost", "lightgbm", "catboost")


def library_of(estimator: Any) -> str:
    """The boosting library whose estimator ends this pipeline; empty if it is of scikit-learn."""
    origins = [kind.__module__.split(".")[0] for kind in type(_last(estimator)).__mro__]
    return next((library for library in _LIBRARIES if library in origins), "")


def ends_in_trees(estimator: Any) -> bool:
    """Whether a tiny difference before the last step can make a large one after it."""
    from sklearn import ensemble, tree

    kinds = (
        tree.BaseDecisionTree,
        ensemble.BaseEnsemble,
        ensemble.HistGradientBoostingClassifier,
        ensemble.HistGradientBoostingRegressor,
    )
    return bool(library_of(estimator)) or isinstance(_last(estimator), kinds)


def graph_of_trees(estimator: Any, taken: Features, source: SourceModel) -> tuple[Any, bool]:
    """The graph of an estimator that ends in trees.

    Args:
        estimator: The trees, alone or at the end of a pipeline.
        taken: The input example.
        source: For messages.

    Returns:
        The graph, and whether its numbers come in as FP64 and are FP64 until they reach the trees;
        otherwise they are FP32.

    Raises:
        ModelError: A step cannot be converted at all.
    """
    last, before, inputs = _last(estimator), _before(estimator), taken.inputs
    booster = _booster(last, source)
    if before is None:
        if booster is None:
            return graph_from_sklearn(estimator, inputs, source), False
        is_double = booster.reads_fp64
        return booster_graph(booster, source.version.name, is_double=is_double), is_double
    try:
        steps = graph_from_sklearn(before, inputs, source, is_double=True)
        _expect_loadable(steps)
        is_exact = True
    except Exception:  # noqa: BLE001  a form of a step that does not exist fails in many ways
        steps = graph_from_sklearn(before, inputs, source)
        is_exact = False
    if booster is None:
        matrix = np.zeros((1, last.n_features_in_), np.float32)
        trees = graph_from_sklearn(last, {MATRIX: matrix}, source)
    else:
        if library_of(last) == "xgboost" and _is_sparse(before, taken.original):
            every = range(booster.ensemble.features)
            booster = replace(booster, zero_is_missing=every)
        trees = booster_graph(booster, source.version.name, is_double=is_exact)
    return _joined(steps, trees, source), is_exact


def narrow_inputs(graph: Any) -> None:
    """Let clients send FP32 to a graph that begins with FP64: nothing but a cast is added."""
    from onnx import TensorProto
    from onnx.helper import make_node

    casts = []
    for value in graph.graph.input:
        tensor = value.type.tensor_type
        if tensor.elem_type != TensorProto.DOUBLE:
            continue
        tensor.elem_type = TensorProto.FLOAT
        readers = [node for node in graph.graph.node if value.name in node.input]
        if all(node.op_type == "Cast" for node in readers):
            continue
        wide = f"wide_{value.name}"
        for node in readers:
            node.input[:] = [wide if name == value.name else name for name in node.input]
        casts.append(make_node("Cast", [value.name], [wide], to=TensorProto.DOUBLE))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def _last(estimator: Any) -> Any:
    return estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator


def _before(estimator: Any) -> Any | None:
    """The steps before the last one as a pipeline; None if they change nothing."""
    from sklearn.pipeline import Pipeline

    steps = [
        step
        for step in getattr(estimator, "steps", [])[:-1]
        if step[1] is not None and not isinstance(step[1], str)
    ]
    return Pipeline(steps) if steps else None


def _booster(last: Any, source: SourceModel) -> Booster | None:
    """The trees, if they are read here and not by skl2onnx."""
    library = library_of(last)
    if library == "xgboost":
        from pipeline.exporters.xgboost import booster_from_xgboost

        return booster_from_xgboost(last, source)
    if library == "lightgbm":
        from pipeline.exporters.lightgbm import booster_from_lightgbm

        return booster_from_lightgbm(last, source)
    if library == "catboost":
        from pipeline.exporters.catboost import booster_from_catboost

        return booster_from_catboost(last, source)
    return booster_from_sklearn(last)


def _is_sparse(before: Any, original: Any) -> bool:
    """Whether the last step reads a sparse matrix, whose zeros XGBoost takes for missing."""
    return hasattr(before.transform(original), "toarray")


def _expect_loadable(graph: Any) -> None:
    """A graph can be valid and name operators that ONNX Runtime has for FP32 only."""
    from onnxruntime import InferenceSession

    InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def _joined(steps: Any, trees: Any, source: SourceModel) -> Any:
    """One graph; what the steps give is cast to what the trees take."""
    from onnx.compose import add_prefix
    from onnx.helper import make_graph, make_model, make_node, make_opsetid

    if len(steps.graph.output) != 1:
        raise ModelError(f"the steps before the last of {source.version} give more than one matrix")
    first, second = (
        add_prefix(_at_target(graph), f"{part}_").graph
        for part, graph in (("steps", steps), ("trees", trees))
    )
    matrix = second.input[0]
    taken, given = matrix.name, first.output[0].name
    cast = make_node("Cast", [given], [taken], to=matrix.type.tensor_type.elem_type)
    graph = make_graph(
        [*first.node, cast, *second.node],
        source.version.name,
        first.input,
        second.output,
        [*first.initializer, *second.initializer],
    )
    opsets = [make_opsetid(domain, version) for domain, version in TARGET_OPSET.items()]
    return make_model(
        graph, opset_imports=opsets, ir_version=trees.ir_version, producer_name="tritonpipe"
    )


def _at_target(graph: Any) -> Any:
    """The same graph under the newest operator set that we use; skl2onnx takes the oldest."""
    from onnx.version_converter import convert_version

    wanted = TARGET_OPSET[""]
    found = {opset.domain: opset.version for opset in graph.opset_import}
    return graph if found.get("", wanted) == wanted else convert_version(graph, wanted)
