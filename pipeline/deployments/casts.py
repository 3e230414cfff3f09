"""Values in the type of an input, or an error: whole numbers exactly, never beyond a range.

Between floating-point types values are rounded, as they were when the model was checked: a
DataFrame holds FP64 and most models take FP32. Everything else must arrive as it was sent.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from pipeline.errors import RequestError
from pipeline.samples import Array
from pipeline.tensors import DataType

_NUMBERS: Final = "fiub"
_MISSING: Final = frozenset({"NAType", "NaTType", "NoneType"})
"""What pandas and Python have for a value that is not there."""


def array_of(values: Any, subject: str) -> Array:
    """An array of what was given; cells that are lists or arrays become further dimensions.

    Raises:
        RequestError: The cells differ in shape.
    """
    array = values.to_numpy() if hasattr(values, "to_numpy") else values
    has_cells = isinstance(array, np.ndarray) and array.dtype == object and array.ndim == 1
    if has_cells and array.size and isinstance(array[0], list | tuple | np.ndarray):
        array = array.tolist()
    try:
        made = np.asarray(array)
    except ValueError as error:
        raise RequestError(f"{subject} holds lists of different lengths: {error}") from None
    # NumPy would make numbers beside text to text, and None to an object as it is.
    if made.dtype.kind in "UST" and not isinstance(array, np.ndarray):
        made = np.asarray(array, dtype=object)
    return made


def cast(array: Array, data_type: DataType, subject: str) -> Array:
    """The same values in the type of an input.

    Raises:
        RequestError: Names the first value that the type cannot hold.
    """
    if data_type is DataType.STRING:
        return _texts(array, subject)
    if data_type is DataType.BF16:
        raise RequestError(f"{subject} is BF16, which cannot be sent from here")
    if array.dtype == object:
        array = _numbers(array, data_type, subject)
    if array.dtype.kind not in _NUMBERS:
        raise RequestError(
            f"{subject} is {data_type.value}; found {array.dtype}",
            hint="times as numbers: column.astype('int64')" if array.dtype.kind in "mM" else "",
        )
    target = np.dtype(data_type.numpy)
    if array.dtype == target:
        return array
    with np.errstate(all="ignore"):
        sent = array.astype(target)
        lost = np.flatnonzero(_lost(array, sent))
    if lost.size:
        raise RequestError(
            f"{subject} is {data_type.value}, which cannot hold {array.ravel()[lost[0]].item()!r}",
            hint="send values that the model was made for",
        )
    return sent


def _lost(array: Array, sent: Array) -> Array:
    if array.dtype.kind == "f" and sent.dtype.kind == "f":
        has_overflown = np.isfinite(array) & ~np.isfinite(sent)
        return np.asarray(has_overflown | ((array != 0) & (sent == 0)))
    return np.asarray(array.astype(np.longdouble) != sent.astype(np.longdouble))


def _texts(array: Array, subject: str) -> Array:
    texts = [item.decode() if isinstance(item, bytes) else item for item in array.ravel().tolist()]
    wrong = next((item for item in texts if not isinstance(item, str)), None)
    if wrong is not None or None in texts:
        found = "a missing value" if _is_missing(wrong) else repr(wrong)
        raise RequestError(f"{subject} is STRING; found {found}")
    made = np.empty(array.shape, dtype=object)
    made.ravel()[:] = texts
    return made


def _numbers(array: Array, data_type: DataType, subject: str) -> Array:
    """Of Python's own numbers; what is missing is NaN."""
    items = [math.nan if _is_missing(item) else item for item in array.ravel().tolist()]
    wrong = next((i for i in items if not isinstance(i, int | float | np.number | np.bool_)), None)
    if wrong is not None:
        raise RequestError(f"{subject} is {data_type.value}; found {wrong!r}")
    # With a fraction among them, NumPy would round large whole numbers before they are looked at.
    exact = [np.asarray(item) for item in items]
    kinds = {item.dtype.kind for item in exact}
    if kinds <= set("iu") or kinds == {"b"} or "f" not in kinds:
        return np.asarray(items).reshape(array.shape)
    return np.asarray(items, dtype=np.longdouble).reshape(array.shape)


def _is_missing(item: Any) -> bool:
    return type(item).__name__ in _MISSING or (isinstance(item, float) and math.isnan(item))
