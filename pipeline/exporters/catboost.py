"""The ``catboost`` flavor: numeric models of CatBoost.

CatBoost's own ONNX export gives maps instead of probabilities, forgets the exponent of Poisson
models, normalises the probabilities of one-against-all models and knows symmetric trees only; so
the trees are read from its JSON export. Guarantees: borders are compared as 32-bit numbers and
leaves added as 64-bit numbers, as CatBoost does; missing values go where its ``nan_mode`` says;
models with categorical, text or embedding features are refused.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.artifacts import SourceModel
from pipeline.exporters import Exported
from pipeline.exporters.boosters import Booster, export_booster, needed, unsupported
from pipeline.exporters.logged import expect_inputs_logged, loaded
from pipeline.exporters.tree_graphs import CategorySplit, Ensemble, Leaf, Split, Tree

_CLASSIFIER_LINKS: Final = {
    "Logloss": "sigmoid",
    "CrossEntropy": "sigmoid",
    "MultiClass": "softmax",
    "MultiClassOneVsAll": "sigmoid",
}
_EXPONENTIAL: Final = ("Poisson", "Tweedie")
_UNKNOWN: Final = ("RMSEWithUncertainty",)


class CatboostExporter:
    """A :class:`pipeline.exporters.Exporter` for CatBoost."""

    flavor: ClassVar[str] = "catboost"

    def export(self, source: SourceModel, destination: Path) -> Exported:
        """Write ``onnx/model.onnx``; see the protocol."""
        expect_inputs_logged(source)
        try:
            import catboost  # noqa: F401  asked for here, so that its absence has a name
            import mlflow.catboost
        except ImportError as error:
            raise needed(self.flavor, error) from error

        model = loaded(source, lambda: mlflow.catboost.load_model(str(source.path)))
        booster = booster_from_catboost(model, source)
        return export_booster(
            booster, model, flavor=self.flavor, source=source, destination=destination
        )


def booster_from_catboost(model: Any, source: SourceModel) -> Booster:
    """Read the trees of a fitted model.

    Raises:
        ModelError: It has features that are not numbers, or an objective whose formula nobody
            knows.
    """
    import catboost

    others = {
        "categorical": model.get_cat_feature_indices(),
        "text": model.get_text_feature_indices(),
        "embedding": model.get_embedding_feature_indices(),
    }
    kinds = [kind for kind, places in others.items() if len(places)]
    if kinds:
        raise unsupported(
            source,
            f"has {' and '.join(kinds)} features, which CatBoost does not support in ONNX: it "
            "computes them from statistics of its training data",
            "encode them as numbers before the model",
        )
    with tempfile.TemporaryDirectory(prefix="tritonpipe-") as folder:
        file = Path(folder) / "model.json"
        model.save_model(str(file), format="json")
        document = json.loads(file.read_text(encoding="utf-8"))
    is_classifier = isinstance(model, catboost.CatBoostClassifier)
    is_regressor = isinstance(model, catboost.CatBoostRegressor)
    loss = str(model.get_all_params()["loss_function"]).split(":", maxsplit=1)[0]
    if loss in _UNKNOWN or (is_classifier and loss not in _CLASSIFIER_LINKS):
        raise unsupported(source, f"has the loss function {loss!r}", "train with another one")
    link = "exponential" if is_regressor and loss in _EXPONENTIAL else "identity"
    return Booster(
        ensemble=_ensemble(document),
        link=_CLASSIFIER_LINKS[loss] if is_classifier else link,
        classes=np.asarray(model.classes_) if is_classifier else None,
        rounds_to_fp32=True,
    )


def _ensemble(document: Mapping[str, Any]) -> Ensemble:
    columns = document["features_info"]["float_features"]
    scale, base = document["scale_and_bias"]
    goes_left = [column["nan_value_treatment"] != "AsTrue" for column in columns]
    found = document.get("oblivious_trees")
    if found is not None:
        trees = [_symmetric_tree(tree, goes_left, scale, len(base)) for tree in found]
    else:
        trees = [_tree(root, goes_left, scale) for root in document["trees"]]
    return Ensemble(trees=trees, base=base, features=len(columns), is_strict=False, is_double=True)


def _split(split: Mapping[str, Any], left: int, right: int, goes_left: Sequence[bool]) -> Split:
    feature = split["float_feature_index"]
    return Split(feature, split["border"], left, right, goes_left[feature])


def _leaf(values: Sequence[float], scale: float) -> Leaf:
    return Leaf(tuple((target, value * scale) for target, value in enumerate(values)))


def _symmetric_tree(
    tree: Mapping[str, Any], goes_left: Sequence[bool], scale: float, width: int
) -> Tree:
    """Every node of a level asks the same; the last split decides the highest bit of the leaf."""
    levels = list(reversed(tree["splits"] or ()))
    inner = (1 << len(levels)) - 1
    nodes: list[Split | CategorySplit | Leaf] = [
        _split(levels[(place + 1).bit_length() - 1], 2 * place + 1, 2 * place + 2, goes_left)
        for place in range(inner)
    ]
    values = tree["leaf_values"]
    nodes += [_leaf(values[begin : begin + width], scale) for begin in range(0, len(values), width)]
    return nodes


def _tree(root: Mapping[str, Any], goes_left: Sequence[bool], scale: float) -> Tree:
    found = [root]
    for node in found:  # grows while it is walked: each level after the one above
        if "split" in node:
            found += [node["left"], node["right"]]
    places = {id(node): place for place, node in enumerate(found)}
    nodes: list[Split | CategorySplit | Leaf] = []
    for node in found:
        if "split" in node:
            left, right = places[id(node["left"])], places[id(node["right"])]
            nodes.append(_split(node["split"], left, right, goes_left))
        else:
            values = node["value"]
            nodes.append(_leaf(values if isinstance(values, list) else [values], scale))
    return nodes
