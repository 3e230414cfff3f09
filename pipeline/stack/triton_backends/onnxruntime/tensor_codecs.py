"""How each tensor of a graph is read from a request and written into a response.

Chosen once per model and kept in dictionaries, since this is on the path of every request. Scalars:
Triton has none without batching, a config says ``dims: [1]`` for them, and so does the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy.typing as npt
import triton_python_backend_utils as pb_utils

if TYPE_CHECKING:
    from pipeline.stack.triton_backends.onnxruntime import bfloat16_tensors, text_tensors
    from pipeline.stack.triton_backends.onnxruntime.graph_contract import GraphTensor
else:
    import bfloat16_tensors
    import text_tensors
    from graph_contract import GraphTensor

Array: TypeAlias = npt.NDArray[Any]
Reader: TypeAlias = Callable[[Any], Array]
"""From a tensor of a request to what the graph is fed; raises ValueError for bad content."""
Writer: TypeAlias = Callable[[str, Array], Any]
"""From the name and value of an output to a tensor of a response."""


def reader_of(tensor: GraphTensor, *, may_be_scalar: bool) -> Reader:
    """Choose how an input is read."""
    read: Reader = pb_utils.Tensor.as_numpy
    if tensor.triton_type == "TYPE_STRING":
        read = lambda t: text_tensors.text_from_bytes(tensor.name, t.as_numpy())  # noqa: E731
    elif tensor.triton_type == "TYPE_BF16":
        read = bfloat16_tensors.bits_from_tensor
    if may_be_scalar and not tensor.shape:
        return lambda t: read(t).reshape(())
    return read


def writer_of(tensor: GraphTensor, dims: tuple[int, ...], *, may_be_scalar: bool) -> Writer:
    """Choose how an output is written; a scalar gets the ``dims`` that the config gives it."""
    write: Writer = pb_utils.Tensor
    if tensor.triton_type == "TYPE_BF16":
        write = _tensor_from_bits
    if may_be_scalar and not tensor.shape:
        return lambda name, array: write(name, array if array.ndim else array.reshape(dims))
    return write


def _tensor_from_bits(name: str, bits: Array) -> Any:
    return pb_utils.Tensor.from_dlpack(name, bfloat16_tensors.value_from_bits(bits))
