"""What tf2onnx lacks: two operations of usual layers, and constants that a layer made itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np


def without_captures(function: Any, specs: Sequence[Any]) -> Any:
    """The same function with variables and constants inside of it; gives its outputs in order.

    tf2onnx takes a constant that a layer made (such as the mean of a Normalization) for an input.
    Raises ValueError for what is neither, such as a table of words.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    frozen = convert_variables_to_constants_v2(
        function.get_concrete_function(), lower_control_flow=False
    )
    if len(frozen.inputs) != len(specs):
        raise ValueError("it looks things up in a table, such as words, which a graph cannot hold")
    return tf.function(lambda *values: tuple(frozen(*values)), input_signature=specs)


def _erfc(ctx: Any, node: Any, *_unused: Any) -> None:
    """Of the exact GELU: 1 - erf(x)."""
    _replaced(ctx, node, lambda one: [one, ctx.make_node("Erf", node.input).output[0]])


def _expm1(ctx: Any, node: Any, *_unused: Any) -> None:
    """Of CELU: exp(x) - 1."""
    _replaced(ctx, node, lambda one: [ctx.make_node("Exp", node.input).output[0], one])


def _replaced(ctx: Any, node: Any, terms: Callable[[str], list[str]]) -> None:
    """Put a difference in the place of a node; one of its terms is 1, in the type of its output."""
    from tf2onnx import utils

    kind, shape = ctx.get_dtype(node.output[0]), ctx.get_shape(node.output[0])
    one = ctx.make_const(
        utils.make_name(f"{node.name}_one"), np.array(1, utils.map_onnx_to_numpy_type(kind))
    )
    inputs, outputs, name = terms(one.output[0]), node.output, node.name
    ctx.remove_node(name)
    ctx.make_node("Sub", inputs, name=name, outputs=outputs, dtypes=[kind], shapes=[shape])


ADDED_OPERATIONS: Final[dict[str, tuple[Any, list[str]]]] = {
    "Erfc": (_erfc, []),
    "Expm1": (_expm1, []),
}
"""In the form that tf2onnx takes."""
