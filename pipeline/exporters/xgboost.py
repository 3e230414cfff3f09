"""The ``xgboost`` flavor: boosters and the scikit-learn API of XGBoost.

Guarantees: the graph compares 32-bit numbers as XGBoost does, so no split is flipped; a classifier
that was stopped early answers with its best iteration, a native booster with all of them, as both
do in MLflow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.artifacts import SourceModel
from pipeline.exporters import Exported
from pipeline.exporters.boosters import Booster, export_booster, needed, unsupported
from pipeline.exporters.logged import expect_inputs_logged, loaded
from pipeline.exporters.tree_graphs import CategorySplit, Ensemble, Leaf, Split, Tree
from pipeline.samples import Array

_INSTEAD: Final = "train trees with one of the built-in objectives"

_LINKS: Final = {
    "binary:logistic": "sigmoid",
    "binary:logitraw": "identity",
    "binary:hinge": "is positive",
    "multi:softprob": "softmax",
    "multi:softmax": "index of the largest",
    "count:poisson": "exponential",
    "reg:gamma": "exponential",
    "reg:tweedie": "exponential",
    "reg:logistic": "sigmoid",
    "survival:aft": "exponential",
    "survival:cox": "exponential",
} | dict.fromkeys(
    (
        "reg:squarederror",
        "reg:squaredlogerror",
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "reg:quantileerror",
        "rank:ndcg",
        "rank:map",
        "rank:pairwise",
    ),
    "identity",
)
_BY_CATEGORY: Final = 1
"""The ``split_type`` of a decision by categories."""


class XgboostExporter:
    """A :class:`pipeline.exporters.Exporter` for XGBoost."""

    flavor: ClassVar[str] = "xgboost"

    def export(self, source: SourceModel, destination: Path) -> Exported:
        """Write ``onnx/model.onnx``; see the protocol."""
        expect_inputs_logged(source)
        try:
            import mlflow.xgboost
            import xgboost
        except ImportError as error:
            raise needed(self.flavor, error) from error

        model = loaded(source, lambda: mlflow.xgboost.load_model(str(source.path)))
        booster = booster_from_xgboost(model, source)
        original = _Native(model) if isinstance(model, xgboost.Booster) else model
        return export_booster(
            booster, original, flavor=self.flavor, source=source, destination=destination
        )


class _Native:
    """A native booster that takes rows, as the estimators do."""

    def __init__(self, booster: Any) -> None:
        self._booster = booster

    def predict(self, rows: Any) -> Array:
        import xgboost

        predicted: Array = self._booster.predict(xgboost.DMatrix(rows))
        return predicted


def booster_from_xgboost(model: Any, source: SourceModel) -> Booster:
    """Read the trees of a ``Booster`` or of an estimator of the scikit-learn API.

    Raises:
        ModelError: The model has no trees, or an objective whose formula nobody knows.
    """
    import xgboost

    native = model if isinstance(model, xgboost.Booster) else model.get_booster()
    used = native if native is model else _used_iterations(native)
    learner = json.loads(bytes(used.save_raw("json")))["learner"]
    objective = learner["objective"]["name"]
    if objective not in _LINKS:
        raise unsupported(source, f"has the objective {objective!r}", _INSTEAD)
    is_classifier = isinstance(model, xgboost.XGBClassifier)
    return Booster(
        ensemble=_ensemble(learner, objective, source),
        link=_LINKS[objective],
        classes=np.asarray(model.classes_) if is_classifier else None,
        missing=np.nan if native is model else float(model.missing),
    )


def _used_iterations(native: Any) -> Any:
    """The iterations that estimators of the scikit-learn API predict with."""
    try:
        return native[: native.best_iteration + 1]
    except AttributeError:
        return native  # it was not stopped early


def _ensemble(learner: Mapping[str, Any], objective: str, source: SourceModel) -> Ensemble:
    booster = learner["gradient_booster"]
    if booster["name"] not in {"gbtree", "dart"}:
        raise unsupported(source, f"is a {booster['name']!r} booster, which has no trees", _INSTEAD)
    factors: Sequence[float] = booster.get("weight_drop", ())
    model = booster["model"] if booster["name"] == "gbtree" else booster["gbtree"]["model"]
    groups = model["tree_info"]
    parameters = learner["learner_model_param"]
    targets = max(int(parameters["num_class"]), int(parameters.get("num_target", 1)), 1)
    trees = [
        _tree(tree, group=group, factor=factors[number] if factors else 1.0)
        for number, (tree, group) in enumerate(zip(model["trees"], groups, strict=True))
    ]
    return Ensemble(
        trees=trees,
        base=_base(parameters["base_score"], objective, targets),
        features=int(parameters["num_feature"]),
        is_strict=True,
        is_double=False,
    )


def _base(text: str, objective: str, targets: int) -> list[float]:
    """What sums start from; XGBoost keeps it as a prediction, and a number where one is enough."""
    scores = np.atleast_1d(np.asarray(json.loads(text), dtype=np.float32))
    link = _LINKS[objective]
    if link == "sigmoid":
        scores = -np.log(1 / scores - 1)
    elif link == "exponential":
        scores = np.log(scores)
    return [float(score) for score in np.broadcast_to(scores, (targets,))]


def _tree(tree: Mapping[str, Any], *, group: int, factor: float) -> Tree:
    width = int(tree["tree_param"]["size_leaf_vector"])
    segments = zip(tree["categories_segments"], tree["categories_sizes"], strict=True)
    sets = [tuple(tree["categories"][begin : begin + size]) for begin, size in segments]
    members = dict(zip(tree["categories_nodes"], sets, strict=True))
    nodes: list[Split | CategorySplit | Leaf] = []
    for number, left in enumerate(tree["left_children"]):
        right, value = tree["right_children"][number], tree["split_conditions"][number]
        missing_goes_left = bool(tree["default_left"][number])
        feature = tree["split_indices"][number]
        if left < 0:
            nodes.append(_leaf(tree, number, value * factor, group=group, width=width))
        elif tree["split_type"][number] == _BY_CATEGORY:
            # Members go right, everything else goes left.
            ways = right, left, not missing_goes_left
            nodes.append(CategorySplit(feature, members[number], *ways))
        else:
            nodes.append(Split(feature, value, left, right, missing_goes_left))
    return nodes


def _leaf(tree: Mapping[str, Any], number: int, value: float, *, group: int, width: int) -> Leaf:
    if width <= 1:
        return Leaf(((group, value),))
    # The right child of a leaf with several targets is its place among the leaves.
    begin = tree["right_children"][number] * width
    return Leaf(tuple(enumerate(tree["leaf_weights"][begin : begin + width])))
