"""Whether FP32 carries what trees that compare 64-bit numbers are asked.

Clients send FP32 unless that changes answers: numbers closer together than FP32 can tell (seconds
since 1970), or decimals such as 0.1 that lie just on a split until they are rounded. Guarantees:
the same example and model give the same answer in every process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from pipeline.errors import ModelError
from pipeline.exporters.variations import varied_array, varied_frame
from pipeline.reports import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE
from pipeline.samples import Array

_COARSE: Final = 1e-4
"""Of the range of a column: rounding by more blurs it."""

_ROWS: Final = 1000
_FLIPPED: Final = 0.002
"""Part of the tried rows whose answer may change; decimals on splits change many more."""

_MOST_DECIMALS: Final = 6
_SEED: Final = 20_261_121
_FP64: Final = np.dtype(np.float64)


def needs_fp64(example: Any, predict: Callable[[Any], Mapping[str, Array]]) -> bool:
    """Whether clients must send FP64.

    Args:
        example: A DataFrame or matrix, as it was logged.
        predict: Asks the original.
    """
    if not any(column.dtype == np.float64 for column in _columns(example)):
        return False
    if any(_is_blurred(column) for column in _columns(example)):
        return True
    if _differing(predict(example), predict(rounded_to_fp32(example))) > 0:
        return True
    try:
        rows = _rows_like(example)
        return _differing(predict(rows), predict(rounded_to_fp32(rows))) > _FLIPPED
    except ModelError:  # the original does not take such rows, which says nothing about FP32
        return False


def rounded_to_fp32(rows: Any) -> Any:
    """The same rows as if their FP64 numbers had travelled as FP32."""
    if hasattr(rows, "columns"):
        wide = [name for name in rows.columns if rows[name].dtype == np.float64]
        return rows.astype(dict.fromkeys(wide, np.float32)).astype(dict.fromkeys(wide, np.float64))
    is_wide = getattr(rows, "dtype", None) == np.float64
    return rows.astype(np.float32).astype(np.float64) if is_wide else rows


def _columns(rows: Any) -> list[Array]:
    if hasattr(rows, "columns"):
        return [rows[name].to_numpy() for name in rows.columns]
    return list(np.transpose(rows))


def _is_blurred(column: Array) -> bool:
    finite = column[np.isfinite(column)] if column.dtype == np.float64 else column[:0]
    if not finite.size:
        return False
    moved = np.abs(finite - rounded_to_fp32(finite)).max()
    return bool(moved > _COARSE * np.ptp(finite) > 0)


def _differing(first: Mapping[str, Array], second: Mapping[str, Array]) -> float:
    """The part of the rows in which two answers differ."""
    rows = len(next(iter(first.values())))
    wrong = np.zeros(rows, dtype=bool)
    for name, array in first.items():
        if array.dtype.kind == "f":
            tolerances = {"rtol": RELATIVE_TOLERANCE, "atol": ABSOLUTE_TOLERANCE}
            same = np.isclose(array, second[name], equal_nan=True, **tolerances)
        else:
            same = array == second[name]
        wrong |= ~same.reshape(rows, -1).all(axis=1)
    return float(wrong.mean())


def _rows_like(example: Any) -> Any:
    """Rows of the form of the example, with as many decimals as its columns have."""
    generator = np.random.default_rng(_SEED)
    if not hasattr(example, "columns"):
        rows = varied_array(example, _ROWS, generator, carried=_FP64, per_column=True, outside=True)
        for number, seen in enumerate(np.transpose(example)):
            rows[:, number] = _as_written(rows[:, number], seen)
        return rows
    frame = varied_frame(example, _ROWS, generator, carried=_FP64, outside=True)
    for name in frame.columns:
        if example[name].dtype == np.float64:
            frame[name] = _as_written(frame[name].to_numpy(), example[name].to_numpy())
    return frame


def _as_written(values: Array, seen: Array) -> Array:
    finite = seen[np.isfinite(seen)]
    for decimals in range(_MOST_DECIMALS + 1):
        if np.array_equal(np.round(finite, decimals), finite):
            return np.round(values, decimals)
    return values
