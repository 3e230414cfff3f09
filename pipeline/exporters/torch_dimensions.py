"""Proof that the dimensions which a signature leaves free are free in an exported graph.

Two kinds of freezing happen: torch.export declares a fixed size, or it declares a free one and
unrolls the example's size into the graph all the same. The second is found only by asking the
original and the graph for another size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from pipeline.artifacts import OnnxModel, SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.logged import described
from pipeline.exporters.torch_models import Call
from pipeline.onnx_graph import OnnxSession
from pipeline.samples import Array
from pipeline.tensors import DYNAMIC

Predict = Callable[[tuple[Array, ...]], Mapping[str, Array]]

_COARSE: Final = 1e-2
"""Answers of a graph that unrolled another size are far off; the check stage looks closely."""

_CODE_HINT: Final = (
    "the code of forward fixes it, for instance with a number in a reshape or a Python loop over "
    "that dimension: let tensor operations follow x.shape, or log a signature with the fixed size"
)


def expect_free_dimensions(
    onnx: OnnxModel,
    call: Call,
    source: SourceModel,
    *,
    expected: Mapping[str, Array],
    predict: Predict,
    is_program: bool,
) -> set[tuple[str, int]]:
    """Compare the graph with the promises of the signature.

    Args:
        onnx: The exported graph.
        call: The inputs and their free dimensions.
        source: For messages.
        expected: What the original answers to the call.
        predict: Asks the original.
        is_program: Whether the original is an exported program.

    Returns:
        Output and dimension wherever the graph declares a size that its answers do not keep. The
        declaration is wrong then, not the graph: torch says so of the outputs of an LSTM.

    Raises:
        ModelError: A free dimension is frozen; says which, at which size, and the way out.
    """
    if call.has_signature:
        _expect_declared(onnx, call, source, is_program=is_program)
    misdeclared = set()
    for axis in sorted(frozenset().union(*call.free)):
        longer = _answers_at_another_size(onnx, call, source, axis, predict)
        misdeclared |= {
            (spec.name, number)
            for spec in onnx.outputs
            if spec.name in longer
            for number, size in enumerate(longer[spec.name].shape)
            if size != expected[spec.name].shape[number] and spec.shape[number] != DYNAMIC
        }
    return misdeclared


def _expect_declared(onnx: OnnxModel, call: Call, source: SourceModel, *, is_program: bool) -> None:
    for spec, free, array in zip(onnx.inputs, call.free, call.arrays, strict=True):
        for axis in sorted(free):
            if axis < len(spec.shape) and spec.shape[axis] == DYNAMIC:
                continue
            frozen = spec.shape[axis] if axis < len(spec.shape) else "nothing"
            raise ModelError(
                f"dimension {axis} of input {spec.name!r} of {source.version} is free in the "
                f"signature, but frozen at {frozen} in the exported graph",
                hint=_way_out(axis, array, is_program=is_program),
            )


def _answers_at_another_size(
    onnx: OnnxModel, call: Call, source: SourceModel, axis: int, predict: Predict
) -> Mapping[str, Array]:
    """Ask both for one more along ``axis``, in all inputs in which it is free at once.

    Empty if the original cannot be asked that.
    """
    pairs = tuple(zip(onnx.inputs, call.free, call.arrays, strict=True))
    is_longer = [axis in free and spec.shape[axis] == DYNAMIC for spec, free, _ in pairs]
    if not any(is_longer):
        return {}
    longer = tuple(
        np.concatenate([array, array.take([0], axis)], axis) if grows else array
        for (_, _, array), grows in zip(pairs, is_longer, strict=True)
    )
    try:
        expected = predict(longer)
    except ModelError as error:
        if axis == 0 and call.has_signature:
            raise ModelError(
                f"dimension 0 of the inputs of {source.version} is free in the signature, but the "
                f"model takes no other size than that of its example: {error.message}",
                hint=_CODE_HINT,
            ) from error
        return {}  # another size of this dimension may rightly be impossible
    problem = _difference(onnx, dict(zip(call.names, longer, strict=True)), expected)
    if problem:
        raise ModelError(
            f"the exported graph of {source.version} keeps the size of dimension {axis} of its "
            f"example: with one more, {problem}",
            hint=_CODE_HINT,
        )
    return expected


def _difference(onnx: OnnxModel, inputs: Mapping[str, Array], expected: Mapping[str, Array]) -> str:
    try:
        answers = OnnxSession(onnx.file, is_optimised=True).run(inputs)
    except Exception as error:  # noqa: BLE001  ONNX Runtime's errors have no common base
        return f"ONNX Runtime cannot run it: {described(error)}"
    for name, array in expected.items():
        found = answers[name]
        if found.shape != array.shape:
            return f"output {name!r} has shape {list(found.shape)}, expected {list(array.shape)}"
        if not np.allclose(found, array, rtol=_COARSE, atol=_COARSE, equal_nan=True):
            return f"output {name!r} differs"
    return ""


def _way_out(axis: int, array: Array, *, is_program: bool) -> str:
    if is_program and array.shape[axis] == 1:
        return (
            "torch.export takes a size of 1 for a constant: log the model with an input_example "
            f"that has at least 2 along dimension {axis}"
        )
    if is_program:
        return (
            "torch.export froze it when the model was logged: log it with "
            "serialization_format='pickle', so that it is exported here"
        )
    return _CODE_HINT
