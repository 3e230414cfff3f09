"""Arrays against arrays: where they differ, by how much, and how to say it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.samples import Array


def row_count(array: Array) -> int:
    """The first dimension counts rows; a single value is one."""
    return int(array.shape[0]) if array.ndim else 1


def kind_of(array: Array) -> str:
    """The type as far as it matters: text is text however it is kept."""
    return "text" if array.dtype.kind in "OUST" else str(array.dtype)


def comparable(array: Array) -> Array:
    """Text as ``str``, floating point as float64, the rest as it is."""
    if kind_of(array) == "text":
        texts = [i.decode(errors="replace") if isinstance(i, bytes) else str(i) for i in array.flat]
        return np.array(texts, dtype=object).reshape(array.shape)
    if array.dtype.kind == "f" or kind_of(array) == "bfloat16":
        return array.astype(np.float64)
    return array


def differences(
    expected: Array, actual: Array, *, relative: float, absolute: float
) -> tuple[Array, Array]:
    """Which values are wrong, and the absolute differences; both arrays are comparable ones.

    Two NaN are the same, and so are two infinities of one sign.
    """
    if expected.dtype == np.float64:
        with np.errstate(invalid="ignore", over="ignore"):
            far = np.abs(expected - actual)
            is_near = far <= absolute + relative * np.abs(expected)
        both_finite = np.isfinite(expected) & np.isfinite(actual)
        is_same = (expected == actual) | (np.isnan(expected) & np.isnan(actual))
        return ~np.where(both_finite, is_near, is_same), np.where(is_same, 0.0, far)
    wrong = np.asarray(expected != actual, dtype=bool)
    if expected.dtype.kind in "iu":
        return wrong, np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    return wrong, wrong.astype(np.float64)


def in_rows(wrong: Array) -> Array:
    """Which rows have anything wrong."""
    return np.asarray(wrong.reshape(row_count(wrong), -1).any(axis=1))


def worst_difference(
    name: str, expected: Array, actual: Array, wrong: Array, distance: Array, numbers: Array
) -> str:
    """The worst value in words, its row by its number; NaN is worse than any distance."""
    badness = np.where(wrong, np.nan_to_num(distance, nan=np.inf), -1.0)
    worst = np.unravel_index(int(np.argmax(badness)), badness.shape)
    place = f"row {int(numbers[worst[0]])}" if worst else "its only value"
    if len(worst) > 1:
        place += f" at [{', '.join(str(int(i)) for i in worst[1:])}]"
    far = ""
    if expected.dtype.kind in "fiu" and np.isfinite(distance[worst]):
        far = f" by {float(distance[worst]):.3g}"
    return (
        f"output {name!r} differs{far} in {place}: expected {_shown(expected[worst])}, "
        f"found {_shown(actual[worst])}; "
        f"{int(in_rows(wrong).sum())} of {row_count(expected)} rows are out of tolerance"
    )


def _shown(value: Any) -> str:
    return f"{float(value):.7g}" if isinstance(value, np.floating) else repr(str(value))
