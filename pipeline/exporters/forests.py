"""Ensembles of scikit-learn whose answers skl2onnx would round: read here, tree by tree.

HistGradientBoosting compares 64-bit numbers. Random forests give every class a whole number of
votes in most rows, so that many rows are ties; summed as 32-bit fractions a tie goes to either
class, here it goes to the first one, as in scikit-learn. Guarantees: what is not known here
(categories, several targets) is None, never an approximation.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pipeline.exporters.boosters import Booster
from pipeline.exporters.tree_graphs import Ensemble, Leaf, Split, Tree

_LINKS: Final = {
    "IdentityLink": "identity",
    "LogLink": "exponential",
    "LogitLink": "sigmoid",
    "MultinomialLogit": "softmax",
}


def booster_from_sklearn(estimator: Any) -> Booster | None:
    """Read a fitted estimator; None if it is of another kind, or does what no booster does."""
    from sklearn import ensemble

    hist = ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor
    regressors = ensemble.RandomForestRegressor, ensemble.ExtraTreesRegressor
    classifiers = ensemble.RandomForestClassifier, ensemble.ExtraTreesClassifier
    if isinstance(estimator, hist):
        return _hist_booster(estimator)
    if isinstance(estimator, (*regressors, *classifiers)) and estimator.n_outputs_ == 1:
        return _forest_booster(estimator, is_classifier=isinstance(estimator, classifiers))
    return None


def _hist_booster(estimator: Any) -> Booster | None:
    from sklearn.base import is_classifier

    link = _LINKS.get(type(estimator._loss.link).__name__)
    if link is None or estimator.is_categorical_ is not None:
        return None
    trees = [
        _hist_tree(predictor.nodes, target)
        for iteration in estimator._predictors
        for target, predictor in enumerate(iteration)
    ]
    return Booster(
        ensemble=Ensemble(
            trees=trees,
            base=[float(value) for value in np.ravel(estimator._baseline_prediction)],
            features=estimator.n_features_in_,
            is_strict=False,
            is_double=True,
        ),
        link=link,
        classes=np.asarray(estimator.classes_) if is_classifier(estimator) else None,
    )


def _hist_tree(nodes: Any, target: int) -> Tree:
    return [
        Leaf(((target, float(node["value"])),))
        if node["is_leaf"]
        else Split(
            int(node["feature_idx"]),
            float(node["num_threshold"]),
            int(node["left"]),
            int(node["right"]),
            bool(node["missing_go_to_left"]),
        )
        for node in nodes
    ]


def _forest_booster(forest: Any, *, is_classifier: bool) -> Booster:
    width = len(forest.classes_) if is_classifier else 1
    return Booster(
        ensemble=Ensemble(
            trees=[_forest_tree(tree.tree_) for tree in forest.estimators_],
            base=[0.0] * width,
            features=forest.n_features_in_,
            is_strict=False,
            is_double=True,
        ),
        link="identity",
        classes=np.asarray(forest.classes_) if is_classifier else None,
        rounds_to_fp32=True,
        divisor=len(forest.estimators_),
    )


def _forest_tree(tree: Any) -> Tree:
    columns = zip(
        tree.children_left.tolist(),
        tree.children_right.tolist(),
        tree.feature.tolist(),
        tree.threshold.tolist(),
        tree.missing_go_to_left.tolist(),
        tree.value[:, 0, :].tolist(),
        strict=True,
    )
    return [
        Split(feature, threshold, left, right, bool(missing_goes_left))
        if left >= 0
        # A class without a share is left out, as long as one has some.
        else Leaf(tuple((n, v) for n, v in enumerate(values) if v) or ((0, 0.0),))
        for left, right, feature, threshold, missing_goes_left, values in columns
    ]
