"""Tensor types by all of their names: Triton's configuration, ONNX, NumPy.

Sources: Triton ``model_config.proto`` (``DataType``), ONNX ``onnx.proto``
(``TensorProto.DataType``). A type that is missing here is one that Triton cannot carry (complex
numbers, 8-bit floats, 4-bit integers).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Protocol

DYNAMIC: Final = -1
"""The size of a dimension that is known only when a request arrives."""


class DataType(enum.Enum):
    """A tensor element type; the value is Triton's name without the ``TYPE_`` prefix."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    UINT16 = "UINT16"
    UINT32 = "UINT32"
    UINT64 = "UINT64"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"
    STRING = "STRING"
    BF16 = "BF16"

    @property
    def triton(self) -> str:
        """The name in ``config.pbtxt``."""
        return f"TYPE_{self.value}"

    @property
    def numpy(self) -> str:
        """The name of the NumPy dtype; BF16 has none in NumPy itself and uses ``ml_dtypes``."""
        return _NUMPY[self]

    @property
    def onnx(self) -> int:
        """The number in ``TensorProto.DataType``."""
        return _ONNX[self]

    @property
    def is_floating(self) -> bool:
        """Whether values are compared within a tolerance rather than exactly."""
        return self in {DataType.FP16, DataType.FP32, DataType.FP64, DataType.BF16}

    @classmethod
    def from_onnx(cls, number: int) -> DataType | None:
        """The type of an ONNX element type number, or None where Triton has no such type."""
        return _FROM_ONNX.get(number)

    @classmethod
    def from_numpy(cls, name: str) -> DataType | None:
        """The type of a NumPy dtype name; text and object dtypes are strings."""
        if name.startswith(("str", "bytes")):
            return cls.STRING
        return _FROM_NUMPY.get(name)


_NUMPY: Final = {
    DataType.BOOL: "bool",
    DataType.UINT8: "uint8",
    DataType.UINT16: "uint16",
    DataType.UINT32: "uint32",
    DataType.UINT64: "uint64",
    DataType.INT8: "int8",
    DataType.INT16: "int16",
    DataType.INT32: "int32",
    DataType.INT64: "int64",
    DataType.FP16: "float16",
    DataType.FP32: "float32",
    DataType.FP64: "float64",
    DataType.STRING: "object",
    DataType.BF16: "bfloat16",
}
_FROM_NUMPY: Final = {name: data_type for data_type, name in _NUMPY.items()}
_ONNX: Final = {
    DataType.FP32: 1,
    DataType.UINT8: 2,
    DataType.INT8: 3,
    DataType.UINT16: 4,
    DataType.INT16: 5,
    DataType.INT32: 6,
    DataType.INT64: 7,
    DataType.STRING: 8,
    DataType.BOOL: 9,
    DataType.FP16: 10,
    DataType.FP64: 11,
    DataType.UINT32: 12,
    DataType.UINT64: 13,
    DataType.BF16: 16,
}
_FROM_ONNX: Final = {number: data_type for data_type, number in _ONNX.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, element type and shape of one input or output.

    Attributes:
        name: Exactly as clients send it.
        data_type: The element type.
        shape: The whole shape, batch dimension included; ``DYNAMIC`` for a free dimension.
        optional: Whether a request may leave the input out.
    """

    name: str
    data_type: DataType
    shape: tuple[int, ...]
    optional: bool = False

    @property
    def has_dynamic_batch(self) -> bool:
        """Whether the first dimension is free, so that requests can be stacked along it."""
        return bool(self.shape) and self.shape[0] == DYNAMIC

    def __str__(self) -> str:
        dims = ",".join("?" if size == DYNAMIC else str(size) for size in self.shape)
        return f"{self.name}: {self.data_type.value}[{dims}]"


class ServedTensors(Protocol):
    """What is known of anything that is asked with tensors, whatever runs inside."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What it takes."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What it answers."""

    @property
    def is_batching(self) -> bool:
        """Whether the first dimension of all of them counts rows, so that requests are stacked."""
