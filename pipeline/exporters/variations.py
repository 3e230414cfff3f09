"""More rows of the form of an example: seen values in new combinations, and others beside them.

Guarantees: the same example gives the same rows in every process; whole numbers stay whole, flags
stay flags, text stays text that was seen; every number is one that a request carries exactly, so
that no difference comes from rounding a value that nobody could have sent.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from pipeline.samples import Array

_MARGIN: Final = 0.1
"""How far outside of the seen range "slightly outside" is, as a part of its width."""

_FP32: Final[np.dtype[Any]] = np.dtype(np.float32)


def varied_array(
    seen: Array,
    rows: int,
    generator: np.random.Generator,
    *,
    carried: np.dtype[Any] = _FP32,
    per_column: bool,
    outside: bool,
) -> Array:
    """Rows like those of an array with at least one row.

    Half of the values are seen ones, the others lie between the smallest and the largest.

    Args:
        seen: The example; its first dimension counts rows.
        rows: How many to make.
        generator: Where chance comes from.
        carried: The type in which requests carry numbers.
        per_column: Whether the range is that of each column, not that of the whole tensor.
        outside: Whether values may lie slightly outside of the range too.
    """
    resampled = seen[generator.integers(0, len(seen), rows)]
    if seen.dtype.kind not in "fiub" or not seen.size:
        return resampled
    largest = float(np.finfo(carried).max) / 4  # a range from end to end is still a number
    if seen.dtype.kind == "f" and seen.dtype.itemsize > carried.itemsize:
        resampled = np.clip(resampled, -largest, largest).astype(carried).astype(seen.dtype)
    shape = resampled.shape
    columns = seen.reshape(len(seen), -1) if per_column else seen.reshape(-1, 1)
    lows, highs, whole, flags = _ranges(columns, outside=outside)
    width = int(np.prod(shape[1:], dtype=int))
    lows, highs = np.clip(lows, -largest, largest), np.clip(highs, -largest, largest)
    fresh = generator.uniform(size=(rows, width)) * (highs - lows) + lows
    fresh = np.where(whole, np.rint(fresh), fresh).astype(carried)
    fresh = np.where(flags, generator.integers(0, 2, (rows, width)), fresh)
    kept = generator.uniform(size=(rows, width)) < 0.5
    mixed = np.where(kept, resampled.reshape(rows, width), _cast(fresh, seen.dtype, carried))
    return mixed.astype(seen.dtype).reshape(shape)


def varied_frame(
    frame: Any,
    rows: int,
    generator: np.random.Generator,
    *,
    carried: np.dtype[Any] = _FP32,
    outside: bool,
) -> Any:
    """Rows like those of a DataFrame with at least one row; its columns keep their types."""
    columns = {}
    for name in frame.columns:
        seen = frame[name]
        # A request cannot carry missing text, so rows with it would be lost.
        present = seen[seen.notna()] if seen.dtype.kind == "O" else seen
        if isinstance(seen.dtype, np.dtype) and seen.dtype.kind in "fiub":
            columns[name] = varied_array(
                seen.to_numpy(),
                rows,
                generator,
                carried=carried,
                per_column=True,
                outside=outside,
            )
        else:  # text, categories, nullable types: only what was seen
            present = present if len(present) else seen
            taken = present.take(generator.integers(0, len(present), rows))
            columns[name] = taken.reset_index(drop=True)
    return type(frame)(columns)


def with_missing(frame: Any, names: list[Any], generator: np.random.Generator) -> Any:
    """The same rows with every third value of these columns missing, and all of the last row's."""
    changed = frame.copy()
    for name in names:
        values = changed[name].to_numpy(copy=True)
        values[generator.uniform(size=len(values)) < 1 / 3] = np.nan
        values[-1:] = np.nan
        changed[name] = values
    return changed


def resized(array: Array, axis: int, size: int) -> Array:
    """The same values, begun again from the start as often as needed, or cut off."""
    again: Array = array.take(np.arange(size) % array.shape[axis], axis)
    return again


def _ranges(columns: Array, *, outside: bool) -> tuple[Array, Array, Array, Array]:
    """Of each column: smallest, largest, whether all are whole, whether all are 0 or 1."""
    finite = np.isfinite(columns) if columns.dtype.kind == "f" else np.ones(columns.shape, bool)
    numbers = np.where(finite, columns, 0).astype(np.float64)
    some = finite.any(axis=0)
    lows = np.where(some, np.where(finite, numbers, np.inf).min(axis=0), 0.0)
    highs = np.where(some, np.where(finite, numbers, -np.inf).max(axis=0), 0.0)
    whole = (numbers == np.rint(numbers)).all(axis=0)
    flags = ((numbers == 0) | (numbers == 1)).all(axis=0) & (highs > lows)
    flags |= columns.dtype.kind == "b"
    if not outside:
        return lows, highs, whole, flags
    width = np.where(highs > lows, highs - lows, np.maximum(np.abs(highs), 1.0))
    margin = np.where(whole, np.maximum(np.rint(_MARGIN * width), 1.0), _MARGIN * width)
    # A column of nothing but 1 is most often a mask, and 2 means nothing there.
    margin = np.where(whole & (lows >= 0) & (highs <= 1), 0.0, margin)
    return lows - margin, highs + margin, whole, flags


def _cast(values: Array, dtype: np.dtype[Any], carried: np.dtype[Any]) -> Array:
    """Into the type, without wrapping around or leaving where every whole number is carried."""
    if dtype.kind in "iu":
        limits, exact = np.iinfo(dtype), 2.0 ** (np.finfo(carried).nmant + 1)
        values = np.clip(values, max(limits.min, -exact), min(limits.max, exact))
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        values = np.clip(values, -limit, limit)
    return values.astype(dtype)
