"""Whether answers agree with the source model's own predictions, value by value.

Guarantees: a missing or additional output, another shape, another type, a NaN or infinity out of
place and a value out of tolerance are each a problem in words, never an exception; a comparison of
nothing is a problem too, so that an empty sample cannot pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.artifacts import OnnxModel
from pipeline.onnx_graph import OnnxSession
from pipeline.reports import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE, Comparison, Report
from pipeline.samples import Array, Samples


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
    tolerances = (relative_tolerance, absolute_tolerance)
    comparisons = [
        _compared(subject, name, array, actual.get(name), tolerances)
        for name, array in expected.items()
    ]
    comparisons += [
        _failed(subject, name, f"output {name!r} has no prediction of the source model")
        for name in sorted(actual.keys() - expected.keys())
    ]
    return tuple(comparisons)


def check_onnx(
    onnx: OnnxModel,
    samples: Samples,
    *,
    samples_origin: str,
    relative_tolerance: float = RELATIVE_TOLERANCE,
    absolute_tolerance: float = ABSOLUTE_TOLERANCE,
) -> Report:
    """Run an exported model in ONNX Runtime and compare with its source.

    A model that takes batches must answer the same for a row alone, for all rows, and for all rows
    twice: Triton puts the rows of different clients into one batch.
    """
    runs = {f"onnx, batch {samples.rows}": samples}
    if onnx.is_batching and samples.rows:
        runs |= {
            "onnx, first row alone": samples.head(1),
            f"onnx, batch {2 * samples.rows} (rows repeated)": samples.repeat(2),
        }
    comparisons: list[Comparison] = []
    for subject, part in runs.items():
        try:
            answers = OnnxSession(onnx.file, is_optimised=True).run(part.inputs)
        except Exception as error:  # noqa: BLE001  ONNX Runtime's errors have no common base
            comparisons.append(_failed(subject, "", f"ONNX Runtime cannot run it: {error}"))
            continue
        comparisons += compare(
            subject,
            part.outputs,
            answers,
            relative_tolerance=relative_tolerance,
            absolute_tolerance=absolute_tolerance,
        )
    return Report(
        comparisons=tuple(comparisons),
        samples_origin=samples_origin,
        relative_tolerance=relative_tolerance,
        absolute_tolerance=absolute_tolerance,
    )


def _failed(subject: str, output: str, problem: str, rows: int = 0) -> Comparison:
    return Comparison(
        subject=subject,
        output=output,
        rows=rows,
        mismatched=rows,
        max_absolute_error=0.0,
        problem=problem,
    )


def _compared(
    subject: str,
    name: str,
    expected: Array,
    actual: Array | None,
    tolerances: tuple[float, float],
) -> Comparison:
    rows = _rows(expected)
    if actual is None:
        return _failed(subject, name, f"output {name!r} is missing", rows)
    if expected.shape != actual.shape:
        problem = f"output {name!r} has shape {list(actual.shape)}, expected {list(expected.shape)}"
        return _failed(subject, name, problem, rows)
    if not expected.size:
        return _failed(subject, name, f"output {name!r} has no values to compare")
    expected_kind, actual_kind = _kind(expected), _kind(actual)
    if expected_kind != actual_kind:
        problem = f"output {name!r} is of type {actual_kind}, expected {expected_kind}"
        return _failed(subject, name, problem, rows)
    wanted, found = _comparable(expected, expected_kind), _comparable(actual, actual_kind)
    wrong, distance = _differences(wanted, found, tolerances)
    by_row = wrong.reshape(rows, -1).any(axis=1)
    largest = np.where(np.isfinite(distance), distance, 0.0).max(initial=0.0)
    return Comparison(
        subject=subject,
        output=name,
        rows=rows,
        mismatched=int(by_row.sum()),
        max_absolute_error=float(largest),
        problem=_problem(name, wanted, found, wrong, distance) if wrong.any() else "",
    )


def _rows(array: Array) -> int:
    return int(array.shape[0]) if array.ndim else 1


def _kind(array: Array) -> str:
    return "text" if array.dtype.kind in "OUST" else str(array.dtype)


def _comparable(array: Array, kind: str) -> Array:
    """Text as ``str``, floating point as float64, the rest as it is."""
    if kind == "text":
        texts = [i.decode(errors="replace") if isinstance(i, bytes) else str(i) for i in array.flat]
        return np.array(texts, dtype=object).reshape(array.shape)
    if array.dtype.kind == "f" or kind == "bfloat16":
        return array.astype(np.float64)
    return array


def _differences(
    expected: Array, actual: Array, tolerances: tuple[float, float]
) -> tuple[Array, Array]:
    """Which values are wrong, and the absolute differences."""
    if expected.dtype == np.float64:
        return _float_differences(expected, actual, tolerances)
    wrong = np.asarray(expected != actual, dtype=bool)
    if expected.dtype.kind in "iu":
        return wrong, np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    return wrong, wrong.astype(np.float64)


def _float_differences(
    expected: Array, actual: Array, tolerances: tuple[float, float]
) -> tuple[Array, Array]:
    relative, absolute = tolerances
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(expected - actual)
        is_near = distance <= absolute + relative * np.abs(expected)
    both_finite = np.isfinite(expected) & np.isfinite(actual)
    is_same = (expected == actual) | (np.isnan(expected) & np.isnan(actual))
    return ~np.where(both_finite, is_near, is_same), np.where(is_same, 0.0, distance)


def _problem(name: str, expected: Array, actual: Array, wrong: Array, distance: Array) -> str:
    """The worst value; one that is not a number is worse than any distance."""
    badness = np.where(wrong, np.nan_to_num(distance, nan=np.inf), -1.0)
    worst = np.unravel_index(int(np.argmax(badness)), badness.shape)
    rows = _rows(expected)
    mismatched = int(wrong.reshape(rows, -1).any(axis=1).sum())
    place = f"row {int(worst[0])}" if worst else "its only value"
    if len(worst) > 1:
        place += f" at [{', '.join(str(int(i)) for i in worst[1:])}]"
    wanted, found = _shown(expected[worst]), _shown(actual[worst])
    far = ""
    if expected.dtype.kind in "fiu" and np.isfinite(distance[worst]):
        far = f" by {float(distance[worst]):.3g}"
    return (
        f"output {name!r} differs{far} in {place}: expected {wanted}, found {found}; "
        f"{mismatched} of {rows} rows are out of tolerance"
    )


def _shown(value: Any) -> str:
    return f"{float(value):.7g}" if isinstance(value, np.floating) else repr(str(value))
