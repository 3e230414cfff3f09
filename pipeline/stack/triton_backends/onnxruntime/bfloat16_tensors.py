"""BF16 between Triton and ONNX Runtime, for which NumPy has no type.

Between the two a BF16 tensor is an array of its 16-bit patterns (``uint16``), which can be stacked
and cut like any other. Guarantees: bit patterns are never converted; no array outlives the memory
it looks at, so what :func:`bits_from_tensor` and :func:`run` return are copies.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Bits: TypeAlias = npt.NDArray[np.uint16]

GRAPH_TYPE: Final = "tensor(bfloat16)"
_ONNX_NUMBER: Final = 16


def problems(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> list[str]:
    """Say why BF16 tensors cannot be carried; empty when they can, or when there are none.

    Args:
        inputs: ONNX Runtime's words for the type of each input, by name.
        outputs: The same for the outputs that the config has.
    """
    carried = [name for name, kind in (*inputs.items(), *outputs.items()) if kind == GRAPH_TYPE]
    texts = [name for name, kind in inputs.items() if kind == "tensor(string)"]
    if carried and texts:
        beside = f"beside text inputs ({_listed(texts)})"
        return [f"ONNX Runtime cannot run BF16 tensors ({_listed(carried)}) {beside}"]
    if carried and not hasattr(ort.OrtValue, "from_dlpack"):
        return [f"ONNX Runtime {ort.__version__} cannot exchange BF16 tensors ({_listed(carried)})"]
    return []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def bits_from_tensor(tensor: Any) -> Bits:
    """Read a BF16 tensor of a request."""
    return _view(ort.OrtValue.from_dlpack(tensor)).copy()


def value_from_bits(bits: Bits) -> Any:
    """Make a BF16 value that owns its memory and can be handed on by DLPack."""
    value = ort.OrtValue.ortvalue_from_shape_and_type(bits.shape, _ONNX_NUMBER)
    _view(value)[...] = bits
    return value


def run(session: Any, names: Sequence[str], feed: dict[str, npt.NDArray[Any]]) -> list[Any]:
    """Run a graph that has BF16 inputs or outputs; the arguments are those of ``session.run``."""
    bfloat16 = {item.name for item in session.get_inputs() if item.type == GRAPH_TYPE}
    bfloat16 |= {i.name for i in session.get_overridable_initializers() if i.type == GRAPH_TYPE}
    values = {
        name: value_from_bits(array)
        if name in bfloat16
        else ort.OrtValue.ortvalue_from_numpy(array)
        for name, array in feed.items()
    }
    results = session.run_with_ort_values(list(names), values)
    return [
        _view(value).copy() if value.data_type() == GRAPH_TYPE else value.numpy()
        for value in results
    ]


def _view(value: Any) -> Bits:
    shape = tuple(value.shape())
    count = math.prod(shape)
    if count == 0:
        return np.empty(shape, np.uint16)
    memory = (ctypes.c_uint16 * count).from_address(value.data_ptr())
    return np.frombuffer(memory, np.uint16).reshape(shape)
