"""Ensembles of decision trees as ONNX graphs, decision by decision as the library makes them.

Guarantees: a value goes left or right exactly where the library sends it, missing values and
categories included; only operators that every ONNX Runtime since 2023 has; the first dimension is
free; the same trees give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from pipeline.samples import Array

TARGET_OPSET: Final = {"": 18, "ai.onnx.ml": 3}
"""Old enough for every ONNX Runtime that a Triton release of the last two years brings."""

_IR_VERSION: Final = 8
"""The format of the file that goes with these operator sets."""

_LARGEST_TABLE: Final = 1 << 26
"""Bytes of the table that says which categories go where."""


class Split(NamedTuple):
    """A decision: left if ``value < threshold`` (or ``<=``, see :class:`Ensemble`)."""

    feature: int
    threshold: float
    left: int
    right: int
    missing_goes_left: bool


class CategorySplit(NamedTuple):
    """A decision: left if the value's whole part is one of ``categories``."""

    feature: int
    categories: tuple[int, ...]
    left: int
    right: int
    missing_goes_left: bool


class Leaf(NamedTuple):
    """The end of a path: what is added, by target."""

    weights: tuple[tuple[int, float], ...]


Tree: TypeAlias = Sequence[Split | CategorySplit | Leaf]
"""Nodes by number; the root is the first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """Trees whose leaves are added up.

    Attributes:
        trees: All trees.
        base: What the sum starts from, one number for each target.
        features: Number of columns that the trees choose from.
        is_strict: Whether a value that equals the threshold goes right.
        is_double: Whether values are compared and added up as 64-bit numbers.
    """

    trees: Sequence[Tree]
    base: Sequence[float]
    features: int
    is_strict: bool
    is_double: bool


class Tensor(NamedTuple):
    """An input or output: its name, ONNX element type and shape."""

    name: str
    element_type: int
    shape: tuple[int | None, ...]


@dataclass(slots=True)
class Nodes:
    """A graph under construction; tensors are known by their names."""

    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node with one output and give the name of that."""
        from onnx.helper import make_node

        name = output or f"tensor_{len(self.nodes)}"
        self.nodes.append(make_node(operator, list(inputs), [name], **attributes))
        return name

    def constant(self, values: Any, dtype: Any) -> str:
        """Add a constant tensor."""
        from onnx.numpy_helper import from_array

        name = f"constant_{len(self.initializers)}"
        self.initializers.append(from_array(np.asarray(values, dtype=dtype), name))
        return name

    def text(self, values: Sequence[str]) -> str:
        """Add a constant vector of text."""
        from onnx import TensorProto
        from onnx.helper import make_tensor

        name = f"constant_{len(self.initializers)}"
        texts: Any = [value.encode() for value in values]
        self.initializers.append(make_tensor(name, TensorProto.STRING, [len(texts)], texts))
        return name

    def cast(self, tensor: str, dtype: Any) -> str:
        """Change the element type."""
        from onnx.helper import np_dtype_to_tensor_dtype

        to = np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", tensor, to=to)

    def model(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Any:
        """Finish the graph; outputs are tensors that exist already."""
        from onnx.helper import make_graph, make_model, make_opsetid, make_tensor_value_info

        described = [make_tensor_value_info(*tensor) for tensor in (*inputs, *outputs)]
        graph = make_graph(
            self.nodes,
            name,
            described[: len(inputs)],
            described[len(inputs) :],
            self.initializers,
        )
        opsets = [make_opsetid(domain, version) for domain, version in TARGET_OPSET.items()]
        return make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="tritonpipe"
        )


def add_ensemble(nodes: Nodes, matrix: str, ensemble: Ensemble) -> str:
    """Append the trees; gives the FP32 matrix of sums, one column for each target.

    Args:
        nodes: The graph to append to.
        matrix: Name of the matrix that the trees read, FP32 or FP64 as ``ensemble.is_double`` says.
        ensemble: The trees.
    """
    places, matrix = _with_category_columns(nodes, matrix, ensemble)
    mode = "BRANCH_LT" if ensemble.is_strict else "BRANCH_LEQ"
    columns: dict[str, list[Any]] = {name: [] for name in (*_NODE_COLUMNS, *_LEAF_COLUMNS)}
    thresholds: list[float] = []
    weights: list[float] = []
    for number, tree in enumerate(ensemble.trees):
        for index, node in enumerate(tree):
            if isinstance(node, Leaf):
                row: tuple[Any, ...] = (number, index, 0, "LEAF", 0, 0, 0)
                thresholds.append(0.0)
                for target, weight in node.weights:
                    for name, value in zip(_LEAF_COLUMNS, (number, index, target), strict=True):
                        columns[name].append(value)
                    weights.append(weight)
            else:
                ways = (node.left, node.right, int(node.missing_goes_left))
                feature, threshold, ways = _decision(node, ways, places)
                row = (number, index, feature, mode, *ways)
                thresholds.append(threshold)
            for name, value in zip(_NODE_COLUMNS, row, strict=True):
                columns[name].append(value)
    numbers = {"nodes_values": thresholds, "target_weights": weights, "base_values": ensemble.base}
    attributes: dict[str, Any] = {
        "domain": "ai.onnx.ml",
        "n_targets": len(ensemble.base),
        "aggregate_function": "SUM",
        "post_transform": "NONE",
        **columns,
        **_numbers(numbers, is_double=ensemble.is_double),
    }
    return nodes.add("TreeEnsembleRegressor", matrix, **attributes)


_NODE_COLUMNS: Final = (
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_modes",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "nodes_missing_value_tracks_true",
)
_LEAF_COLUMNS: Final = ("target_treeids", "target_nodeids", "target_ids")


def _numbers(numbers: Mapping[str, Sequence[float]], *, is_double: bool) -> dict[str, Any]:
    if not is_double:
        return {name: np.asarray(values, np.float32).tolist() for name, values in numbers.items()}
    from onnx.numpy_helper import from_array

    return {
        f"{name}_as_tensor": from_array(np.asarray(values, np.float64), name)
        for name, values in numbers.items()
    }


def _decision(
    node: Split | CategorySplit,
    ways: tuple[int, int, int],
    places: Mapping[tuple[int, tuple[int, ...]], int],
) -> tuple[int, float, tuple[int, int, int]]:
    if isinstance(node, Split):
        return node.feature, node.threshold, ways
    # The column holds 1 for members; below one half is the other way.
    left, right, missing_goes_left = ways
    return places[node.feature, node.categories], 0.5, (right, left, 1 - missing_goes_left)


def _with_category_columns(
    nodes: Nodes, matrix: str, ensemble: Ensemble
) -> tuple[dict[tuple[int, tuple[int, ...]], int], str]:
    """Append a column for each set of categories: 1 for its members, 0 for others, NaN for NaN.

    ONNX's trees compare with one number at a time; a chain of such comparisons would repeat the
    branches below it for every category.
    """
    kind = np.float64 if ensemble.is_double else np.float32
    sets: dict[int, dict[tuple[int, ...], None]] = {}
    for node in (node for tree in ensemble.trees for node in tree):
        if isinstance(node, CategorySplit):
            sets.setdefault(node.feature, {})[node.categories] = None
    places: dict[tuple[int, tuple[int, ...]], int] = {}
    parts = [matrix]
    for feature, known in sorted(sets.items()):
        for categories in known:
            places[feature, categories] = ensemble.features + len(places)
        parts.append(_category_columns(nodes, matrix, feature, list(known), kind))
    return places, nodes.add("Concat", *parts, axis=1) if sets else matrix


def _category_columns(
    nodes: Nodes, matrix: str, feature: int, known: Sequence[tuple[int, ...]], kind: Any
) -> str:
    last = max((max(categories, default=0) for categories in known), default=0)
    if (last + 3) * len(known) > _LARGEST_TABLE:
        raise ValueError(
            f"{len(known)} splits of feature {feature} by categories up to {last} make too large a "
            "table"
        )
    column = nodes.add("Gather", matrix, nodes.constant(feature, np.int64), axis=1)
    is_missing = nodes.add("IsNaN", column)
    present = nodes.add("Where", is_missing, nodes.constant(-1, kind), column)
    bounds = nodes.constant(-1, kind), nodes.constant(last + 1, kind)
    whole = nodes.cast(nodes.add("Clip", present, *bounds), np.int64)
    row = nodes.add("Add", whole, nodes.constant(1, np.int64))
    members = nodes.cast(
        nodes.add("Gather", nodes.constant(_table(known, last), bool), row, axis=0), kind
    )
    unknown = nodes.add("Unsqueeze", is_missing, nodes.constant([1], np.int64))
    return nodes.add("Where", unknown, nodes.constant(np.nan, kind), members)


def _table(known: Sequence[tuple[int, ...]], last: int) -> Array:
    """One row for each category from -1 (none) to one above the last, one column for each set."""
    table = np.zeros((last + 3, len(known)), dtype=bool)
    for place, categories in enumerate(known):
        table[[category + 1 for category in categories], place] = True
    return table
