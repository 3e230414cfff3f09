"""A few of the values that were compared, for a plot: the worst ones, and some of all sizes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from pipeline.checks.tolerances import Tolerance
from pipeline.reports import ErrorSample
from pipeline.samples import Array

_WORST: Final = 200
_OTHERS: Final = 300


def error_sample(name: str, expected: Array, errors: Array, tolerance: Tolerance) -> ErrorSample:
    """At most 500 values of an output.

    Args:
        name: Of the output.
        expected: What was predicted, as float64.
        errors: Absolute differences, of the same shape.
        tolerance: That was applied.
    """
    values, distances = expected.ravel(), errors.ravel()
    chosen = _chosen(values, distances)
    return ErrorSample(
        output=name,
        expected=tuple(float(value) for value in values[chosen]),
        errors=tuple(float(error) for error in distances[chosen]),
        relative_tolerance=tolerance.relative,
        absolute_tolerance=tolerance.absolute,
    )


def merged(samples: Iterable[ErrorSample]) -> tuple[ErrorSample, ...]:
    """One sample of at most 500 values for each output."""
    by_output: dict[str, list[ErrorSample]] = {}
    for sample in samples:
        by_output.setdefault(sample.output, []).append(sample)
    return tuple(
        error_sample(
            name,
            np.concatenate([np.array(s.expected) for s in parts]),
            np.concatenate([np.array(s.errors) for s in parts]),
            Tolerance(relative=parts[0].relative_tolerance, absolute=parts[0].absolute_tolerance),
        )
        for name, parts in by_output.items()
    )


def _chosen(values: Array, errors: Array) -> Array:
    if values.size <= _WORST + _OTHERS:
        return np.arange(values.size)
    badness = np.nan_to_num(errors, nan=np.inf, posinf=np.inf)
    worst = np.argsort(-badness, kind="stable")[:_WORST]
    by_size = np.argsort(np.nan_to_num(np.abs(values)), kind="stable")
    evenly = by_size[np.linspace(0, values.size - 1, _OTHERS).astype(int)]
    return np.union1d(worst, evenly)
