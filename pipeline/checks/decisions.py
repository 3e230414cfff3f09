"""Whether a classifier decides as its source does, which is what its clients act upon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from pipeline.checks.tolerances import Tolerance, Tolerances
from pipeline.checks.values import comparable
from pipeline.samples import Array

_SUM: Final = 1e-2
"""How far a sum of probabilities may be from 1: FP16 and hundreds of classes add up to that."""


def is_probability_like(expected: Array) -> bool:
    """Whether the last dimension holds probabilities of classes: from 0 to 1, with the sum 1."""
    if expected.dtype.kind != "f" or expected.ndim < 2 or expected.shape[-1] < 2:
        return False
    values = expected.astype(np.float64)
    if not values.size or not np.isfinite(values).all():
        return False
    is_bounded = bool((values >= 0).all() and (values <= 1 + _SUM).all())
    return is_bounded and bool((np.abs(values.sum(axis=-1) - 1) <= _SUM).all())


def near_ties(expected: Array, tolerance: Tolerance) -> Array:
    """Where the two most probable classes differ by less than the tolerance."""
    best = np.sort(expected, axis=-1)[..., -2:]
    gap = best[..., 1] - best[..., 0]
    ties: Array = gap <= tolerance.absolute + tolerance.relative * best[..., 1]
    return ties


def tied_rows(expected: Mapping[str, Array], tolerances: Tolerances) -> Array | None:
    """Rows without a clear decision; None unless exactly one output has probabilities of rows."""
    likely = [a for a in expected.values() if a.ndim == 2 and is_probability_like(a)]
    if len(likely) != 1:
        return None
    return near_ties(comparable(likely[0]), tolerances.of(str(likely[0].dtype)))


def disagreements(expected: Array, actual: Array, tolerance: Tolerance) -> Array:
    """Where the most probable class is another, and no tie excuses it."""
    another = expected.argmax(axis=-1) != np.nan_to_num(actual, nan=-np.inf).argmax(axis=-1)
    wrong: Array = another & ~near_ties(expected, tolerance)
    return wrong
