from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.checks.parity import compare, compare_outputs
from pipeline.checks.tolerances import Tolerances
from pipeline.reports import Comparison, Question


def compared(expected: Any, actual: Any) -> Comparison:
    (comparison,) = compare(
        "run",
        {"y": np.asarray(expected)},
        {"y": np.asarray(actual)},
        relative_tolerance=1e-3,
        absolute_tolerance=1e-5,
    )
    return comparison


FLOATS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=np.float32)


@pytest.mark.parametrize(
    "array",
    [
        FLOATS,
        FLOATS.astype(np.float16),
        np.array([np.nan, np.inf, -np.inf, 0.0]),
        np.array([1, 2**62], dtype=np.int64),
        np.array([True, False]),
        np.array(["yes", "nø"], dtype=object),
        np.array(["yes", "no"]),
        np.array(1.5, dtype=np.float32),
    ],
    ids=str,
)
def test_whatever_equals_itself_agrees(array: Any) -> None:
    comparison = compared(array, array.copy())
    assert comparison.ok
    assert comparison.mismatched == 0
    assert comparison.max_absolute_error == 0.0
    assert comparison.rows == (array.shape[0] if array.ndim else 1)


@pytest.mark.parametrize("distance", [1e-5, 1e-3, 1.0])
def test_the_tolerance_is_the_sum_of_both_parts(distance: float) -> None:
    expected = np.array([0.0, 1.0, 1000.0])
    within = np.array([0.9e-5, 1.0 + 1.0e-3, 1000.9])
    assert compared(expected, within).ok
    beyond = within.copy()
    index = [1e-5, 1e-3, 1.0].index(distance)
    beyond[index] = expected[index] + distance * 1.02 + 1e-5 * (index > 0)
    assert compared(expected, beyond).mismatched == 1


def test_rows_are_counted_not_values() -> None:
    actual = FLOATS.copy()
    actual[1] += 1.0
    comparison = compared(FLOATS, actual)
    assert (comparison.rows, comparison.mismatched) == (3, 1)


def test_the_problem_names_the_worst_value() -> None:
    actual = FLOATS.copy()
    actual[0, 0] += 0.1
    actual[2, 1] -= 0.5
    comparison = compared(FLOATS, actual)
    assert comparison.problem == (
        "output 'y' differs by 0.5 in row 2 at [1]: expected 6, found 5.5; "
        "2 of 3 rows are out of tolerance"
    )
    assert comparison.max_absolute_error == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (np.nan, 1.0),
        (1.0, np.nan),
        (np.inf, -np.inf),
        (np.inf, 1e30),
        (1.0, np.inf),
    ],
)
def test_a_value_that_is_no_number_is_worse_than_any_distance(
    expected: float, actual: float
) -> None:
    comparison = compared([1.0, expected, 2.0], [1.0, actual, 102.0])
    assert comparison.mismatched == 2
    assert "in row 1" in comparison.problem
    assert comparison.max_absolute_error == 100.0


@pytest.mark.parametrize(
    ("expected", "actual", "problem"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "has shape [3, 2], expected [2, 3]"),
        (np.zeros(2), np.zeros((2, 1)), "has shape [2, 1], expected [2]"),
        (np.zeros(2, np.float32), np.zeros(2), "is of type float64, expected float32"),
        (np.zeros(2, np.int64), np.zeros(2, np.int32), "is of type int32, expected int64"),
        (np.array(["0"]), np.array([0]), "is of type int64, expected text"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "has no values to compare"),
    ],
)
def test_another_shape_or_type_is_a_problem(expected: Any, actual: Any, problem: str) -> None:
    assert problem in compared(expected, actual).problem


def test_integers_and_truth_values_must_be_equal() -> None:
    integers = compared(np.array([1000, 2000]), np.array([1000, 2001]))
    assert integers.problem == (
        "output 'y' differs by 1 in row 1: expected '2000', found '2001'; "
        "1 of 2 rows are out of tolerance"
    )
    assert compared(np.array([True, False]), np.array([True, True])).mismatched == 1


def test_integers_beyond_the_precision_of_floats_must_be_equal_too() -> None:
    assert not compared(np.array([2**62]), np.array([2**62 + 1])).ok


@pytest.mark.parametrize(
    "actual",
    [np.array(["yes", "nø"]), np.array([b"yes", "nø".encode()], dtype=object)],
)
def test_text_is_text_however_it_is_kept(actual: Any) -> None:
    assert compared(np.array(["yes", "nø"], dtype=object), actual).ok
    assert "expected 'no', found 'nø'" in compared(np.array(["yes", "no"]), actual).problem


def test_a_missing_and_an_additional_output_are_problems() -> None:
    missing, additional = compare(
        "run", {"a": FLOATS}, {"b": FLOATS}, relative_tolerance=1, absolute_tolerance=1
    )
    assert missing.problem == "output 'a' is missing"
    assert missing.mismatched == 3
    assert additional.problem == "output 'b' has no prediction of the source model"


PROBABILITIES = np.array([[0.7, 0.3], [0.5002, 0.4998], [0.1, 0.9]], np.float32)


def test_a_label_is_excused_only_where_the_two_best_are_as_good_as_equal() -> None:
    labels = np.array([0, 0, 1])
    expected = {"label": labels, "probabilities": PROBABILITIES}
    options = {"relative_tolerance": 1e-3, "absolute_tolerance": 1e-5}
    for row, is_excused in enumerate([False, True, False]):
        other = labels.copy()
        other[row] = 1 - other[row]
        found = compare("run", expected, {**expected, "label": other}, **options)
        assert found[0].ok is is_excused
        assert found[0].failing_rows == (() if is_excused else (row,))


@pytest.mark.parametrize(
    ("wrong", "ok"),
    [
        ([0.3, 0.7], False),  # another class
        ([0.45, 0.55], False),  # within the tolerance of 0.25, and yet another class
        ([0.6, 0.4], True),
        ([np.nan, np.nan], True),  # no decision at all: told by the comparison of values
    ],
)
def test_the_decision_counts_besides_the_tolerance(wrong: list[float], *, ok: bool) -> None:
    expected = np.array([[0.7, 0.3], [0.1, 0.9]], np.float32)
    actual = expected.copy()
    actual[0] = wrong
    tolerances = Tolerances(relative_tolerance=0.0, absolute_tolerance=0.25)
    _, decision = compare_outputs("run", "", {"p": expected}, {"p": actual}, tolerances)
    assert decision.comparison.question is Question.DECISION
    assert decision.comparison.ok is ok
    if not ok:
        assert "decides differently in row 0: the most probable is number 0, found 1" in (
            decision.comparison.problem
        )


@pytest.mark.parametrize(
    "values",
    [
        [[0.7, 0.4], [0.5, 0.5]],
        [[1.5, -0.5], [0.5, 0.5]],
        [[np.nan, 1.0], [0.5, 0.5]],
        [[1.0], [1.0]],
    ],
    ids=["other sums", "negative", "not a number", "one column"],
)
def test_scores_that_are_no_probabilities_have_no_decision(values: Any) -> None:
    scores = {"y": np.array(values, np.float32)}
    found = compare_outputs("run", "", scores, scores, Tolerances())
    assert [c.comparison.question for c in found] == [Question.VALUES]
