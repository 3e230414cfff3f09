"""The ``lightgbm`` flavor: boosters and the scikit-learn API of LightGBM.

Guarantees: the graph compares and adds 64-bit numbers as LightGBM does, so no split is flipped and
no sum is rounded on the way; zeros, missing values and categories go where LightGBM sends them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.artifacts import SourceModel
from pipeline.exporters import Exported
from pipeline.exporters.boosters import Booster, export_booster, needed, unsupported
from pipeline.exporters.logged import expect_inputs_logged, loaded
from pipeline.exporters.tree_graphs import CategorySplit, Ensemble, Leaf, Split, Tree

_INSTEAD: Final = "train trees with one of the built-in objectives"

_LINKS: Final = {
    "binary": "sigmoid",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "softplus",
    "poisson": "exponential",
    "gamma": "exponential",
    "tweedie": "exponential",
} | dict.fromkeys(
    (
        "regression",
        "regression_l1",
        "huber",
        "fair",
        "quantile",
        "mape",
        "lambdarank",
        "rank_xendcg",
    ),
    "identity",
)


class LightgbmExporter:
    """A :class:`pipeline.exporters.Exporter` for LightGBM."""

    flavor: ClassVar[str] = "lightgbm"

    def export(self, source: SourceModel, destination: Path) -> Exported:
        """Write ``onnx/model.onnx``; see the protocol."""
        expect_inputs_logged(source)
        try:
            import lightgbm  # noqa: F401  asked for here, so that its absence has a name
            import mlflow.lightgbm
        except ImportError as error:
            raise needed(self.flavor, error) from error

        model = loaded(source, lambda: mlflow.lightgbm.load_model(str(source.path)))
        booster = booster_from_lightgbm(model, source)
        return export_booster(
            booster, model, flavor=self.flavor, source=source, destination=destination
        )


def booster_from_lightgbm(model: Any, source: SourceModel) -> Booster:
    """Read the trees of a ``Booster`` or of an estimator of the scikit-learn API.

    Raises:
        ModelError: Its leaves are linear models, its columns are pandas categories, or its
            objective is one whose formula nobody knows.
    """
    import lightgbm

    native = model if isinstance(model, lightgbm.Booster) else model.booster_
    dump = native.dump_model()
    if dump.get("pandas_categorical"):
        raise unsupported(
            source,
            "was trained on pandas categories, which neither an input example nor a request can "
            "carry",
            "train on whole numbers and name these columns in categorical_feature",
        )
    objective, *options = dump.get("objective", "of its author").split(" ")
    if objective not in _LINKS:
        raise unsupported(source, f"has the objective {objective!r}", _INSTEAD)
    is_classifier = isinstance(model, lightgbm.LGBMClassifier)
    link = "signed square" if "sqrt" in options else _LINKS[objective]
    nodes = [node for tree in dump["tree_info"] for node in _walk(tree["tree_structure"])]
    return Booster(
        ensemble=_ensemble(dump, _steepness(options), source),
        link=link,
        classes=np.asarray(model.classes_) if is_classifier else None,
        zero_is_missing=sorted(
            {node["split_feature"] for node in nodes if node.get("missing_type") == "Zero"}
        ),
    )


def _steepness(options: list[str]) -> float:
    """The factor in front of what the sigmoid is taken of."""
    found = [option.removeprefix("sigmoid:") for option in options if option.startswith("sigmoid:")]
    return float(found[0]) if found else 1.0


def _ensemble(dump: Mapping[str, Any], factor: float, source: SourceModel) -> Ensemble:
    groups = int(dump["num_tree_per_iteration"])
    found = dump["tree_info"]
    if dump["average_output"]:
        factor /= max(len(found) // groups, 1)
    return Ensemble(
        trees=[
            _tree(tree["tree_structure"], number % groups, factor, source)
            for number, tree in enumerate(found)
        ],
        base=[0.0] * groups,
        features=int(dump["max_feature_idx"]) + 1,
        is_strict=False,
        is_double=True,
    )


def _walk(root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All nodes below and with ``root``, each before its children; trees can be deep."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        if "split_feature" in node:
            waiting += [node["right_child"], node["left_child"]]


def _tree(root: Mapping[str, Any], group: int, factor: float, source: SourceModel) -> Tree:
    found = list(_walk(root))
    places = {id(node): place for place, node in enumerate(found)}
    nodes: list[Split | CategorySplit | Leaf] = []
    for node in found:
        if "split_feature" not in node:
            if "leaf_const" in node:
                raise unsupported(source, "has linear models in its leaves", "train without them")
            nodes.append(Leaf(((group, node["leaf_value"] * factor),)))
            continue
        feature = node["split_feature"]
        children = places[id(node["left_child"])], places[id(node["right_child"])]
        if node["decision_type"] == "==":
            members = tuple(int(category) for category in node["threshold"].split("||"))
            nodes.append(CategorySplit(feature, members, *children, missing_goes_left=False))
        else:
            goes_left = _missing_goes_left(node)
            nodes.append(Split(feature, node["threshold"], *children, goes_left))
    return nodes


def _missing_goes_left(node: Mapping[str, Any]) -> bool:
    if node["missing_type"] == "None":  # no value was missing in training: NaN is taken for zero
        return bool(node["threshold"] >= 0)
    return bool(node["default_left"])
