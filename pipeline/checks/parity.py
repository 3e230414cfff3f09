"""Whether answers agree with the source model's own predictions, value by value.

Guarantees: a missing or additional output, another shape, another type, a NaN or infinity out of
place and a value out of tolerance are each a problem in words, never an exception; a comparison of
nothing is a problem too, so that an empty sample cannot pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from pipeline.checks.decisions import disagreements, is_probability_like, tied_rows
from pipeline.checks.error_samples import error_sample
from pipeline.checks.tolerances import Tolerance, Tolerances
from pipeline.checks.values import (
    comparable,
    differences,
    in_rows,
    kind_of,
    row_count,
    worst_difference,
)
from pipeline.reports import Comparison, ErrorSample, Question
from pipeline.samples import Array

_SHOWN_ROWS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compared:
    """A comparison, which of its rows are out of tolerance, and some of its errors."""

    comparison: Comparison
    wrong: Array
    errors: ErrorSample | None = None


def compare(
    subject: str,
    expected: Mapping[str, Array],
    actual: Mapping[str, Array],
    *,
    relative_tolerance: float,
    absolute_tolerance: float,
) -> tuple[Comparison, ...]:
    """Compare every output of one run.

    Floating-point values agree within ``absolute_tolerance + relative_tolerance * |expected|``;
    everything else must be equal. Text may be ``str``, ``bytes`` or NumPy text.

    Args:
        subject: What was run, for the report.
        expected: The source model's predictions, by name of the output.
        actual: What was answered.
        relative_tolerance: For floating-point outputs.
        absolute_tolerance: For floating-point outputs.
    """
    tolerances = Tolerances(
        relative_tolerance=relative_tolerance, absolute_tolerance=absolute_tolerance
    )
    compared = compare_outputs(subject, "", expected, actual, tolerances)
    return tuple(c.comparison for c in compared if c.comparison.question is not Question.DECISION)


def compare_outputs(
    subject: str,
    inputs: str,
    expected: Mapping[str, Array],
    actual: Mapping[str, Array],
    tolerances: Tolerances,
    *,
    numbers: Array | None = None,
) -> list[Compared]:
    """Compare every output of one run, and the decisions of a classifier.

    A label is no disagreement where the two most probable classes are as good as equal.

    Args:
        subject: What was run, for the report.
        inputs: On which inputs, for the report.
        expected: The source model's predictions, by name of the output.
        actual: What was answered.
        tolerances: For floating-point outputs.
        numbers: What to call the rows; None for counting them.
    """
    ties = tied_rows(expected, tolerances)
    found: list[Compared] = []
    for name, array in expected.items():
        answer = actual.get(name)
        tolerance = tolerances.of(str(array.dtype))
        is_label = array.dtype.kind in "iubOUST" and array.size == row_count(array)
        spared = ties if is_label and ties is not None and len(ties) == len(array) else None
        called = np.arange(row_count(array)) if numbers is None else numbers
        compared = _compared(name, array, answer, tolerance, spared, called)
        found.append(compared)
        is_decision = is_probability_like(array) and compared.comparison.question is Question.VALUES
        if answer is not None and is_decision:
            found.append(_decided(name, array, answer, tolerance, called))
    found += [
        _failed(name, f"output {name!r} has no prediction of the source model")
        for name in sorted(actual.keys() - expected.keys())
    ]
    return [said_of(c, subject, inputs) for c in found]


def said_of(compared: Compared, subject: str, inputs: str) -> Compared:
    """The same comparison of another run."""
    comparison = replace(compared.comparison, subject=subject, inputs=inputs)
    return replace(compared, comparison=comparison)


def failed(subject: str, inputs: str, problem: str) -> Compared:
    """A run that gave no answer."""
    return said_of(_failed("", problem), subject, inputs)


def _failed(name: str, problem: str, rows: int = 0) -> Compared:
    comparison = Comparison(
        subject="",
        output=name,
        rows=rows,
        mismatched=rows,
        max_absolute_error=0.0,
        problem=problem,
        question=Question.FORM,
    )
    return Compared(comparison=comparison, wrong=np.ones(rows, bool))


def _compared(
    name: str,
    expected: Array,
    actual: Array | None,
    tolerance: Tolerance,
    spared: Array | None,
    numbers: Array,
) -> Compared:
    rows = row_count(expected)
    if actual is None:
        return _failed(name, f"output {name!r} is missing", rows)
    if expected.shape != actual.shape:
        problem = f"output {name!r} has shape {list(actual.shape)}, expected {list(expected.shape)}"
        return _failed(name, problem, rows)
    if not expected.size:
        return _failed(name, f"output {name!r} has no values to compare")
    if kind_of(expected) != kind_of(actual):
        problem = f"output {name!r} is of type {kind_of(actual)}, expected {kind_of(expected)}"
        return _failed(name, problem, rows)
    wanted, found = comparable(expected), comparable(actual)
    wrong, distance = differences(
        wanted, found, relative=tolerance.relative, absolute=tolerance.absolute
    )
    if spared is not None:
        wrong &= ~spared.reshape(-1, *[1] * (wrong.ndim - 1))
    largest = np.where(np.isfinite(distance), distance, 0.0).max(initial=0.0)
    problem = ""
    if wrong.any():
        problem = worst_difference(name, wanted, found, wrong, distance, numbers)
    compared = _of_rows(name, Question.VALUES, in_rows(wrong), problem, float(largest), numbers)
    if wanted.dtype != np.float64:
        return compared
    return replace(compared, errors=error_sample(name, wanted, distance, tolerance))


def _decided(
    name: str, expected: Array, actual: Array, tolerance: Tolerance, numbers: Array
) -> Compared:
    wanted, found = comparable(expected), comparable(actual)
    wrong = disagreements(wanted, found, tolerance)
    rows = in_rows(wrong)
    problem = ""
    if rows.any():
        place = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        best = int(wanted[place].argmax()), int(found[place].argmax())
        problem = (
            f"output {name!r} decides differently in row {int(numbers[place[0]])}: the most "
            f"probable is number {best[0]}, found {best[1]}; "
            f"{int(rows.sum())} of {len(rows)} rows are decided differently"
        )
    return _of_rows(name, Question.DECISION, rows, problem, 0.0, numbers)


def _of_rows(
    name: str, question: Question, wrong: Array, problem: str, largest: float, numbers: Array
) -> Compared:
    comparison = Comparison(
        subject="",
        output=name,
        rows=len(wrong),
        mismatched=int(wrong.sum()),
        max_absolute_error=largest,
        problem=problem,
        question=question,
        failing_rows=tuple(int(row) for row in np.unique(numbers[wrong])[:_SHOWN_ROWS]),
    )
    return Compared(comparison=comparison, wrong=wrong)
