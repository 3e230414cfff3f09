"""Takes out of a graph of tf2onnx what changes each time it is made.

TensorFlow and tf2onnx count on in the names of operations, tensors and free dimensions, for as long
as a process lives. Guarantees: the same model gives the same bytes; nothing but names changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Final

from pipeline.onnx_graph import all_graphs, rename_values, strip_notes

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

_PREFIX: Final = "inner_"


def number_names(model: ModelProto, name: str) -> None:
    """Call what is inside by numbers, in the order in which it is computed.

    Args:
        model: Its inputs and outputs keep their names.
        name: What to call the graph.
    """
    strip_notes(model)
    graph = model.graph
    kept = {"", *(value.name for value in (*graph.input, *graph.output))}
    inner = [found for found in dict.fromkeys(_in_order(graph)) if found not in kept]
    free = (name for name in map(f"{_PREFIX}{{}}".format, count()) if name not in kept)
    rename_values(graph, dict(zip(inner, free, strict=False)))
    for scope in all_graphs(graph):
        scope.name = name
        scope.ClearField("value_info")
        for number, node in enumerate(scope.node):
            node.name = f"{node.op_type}_{number}"
        tensors = sorted(scope.initializer, key=lambda tensor: tensor.name)
        scope.ClearField("initializer")
        scope.initializer.extend(tensors)
    _number_dimensions(graph)


def unknown_operations(model: ModelProto) -> list[str]:
    """What tf2onnx left in the graph as TensorFlow calls it."""
    import onnx

    versions = {opset.domain: opset.version for opset in model.opset_import}
    return sorted(
        {
            node.op_type
            for scope in all_graphs(model.graph)
            for node in scope.node
            if not onnx.defs.has(node.op_type, versions.get(node.domain, 1), node.domain)
        }
    )


def _in_order(graph: GraphProto) -> Iterator[str]:
    for scope in all_graphs(graph):
        yield from (value.name for value in scope.input)
        for node in scope.node:
            yield from (*node.input, *node.output)
        yield from (value.name for value in scope.output)
        yield from (tensor.name for tensor in scope.initializer)


def _number_dimensions(graph: GraphProto) -> None:
    names: dict[str, str] = {}
    for scope in all_graphs(graph):
        for value in (*scope.input, *scope.output):
            for size in value.type.tensor_type.shape.dim:
                if size.dim_param:
                    size.dim_param = names.setdefault(size.dim_param, f"dim_{len(names)}")
