"""From the rows that an estimator was logged with to the tensors that clients send.

Numbers and booleans become FP32: skl2onnx wants one type for all numeric columns of a pipeline, and
FP32 is the one that it converts reliably. They become FP64 where an exporter asks for it. What that
type or a request cannot carry is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.logged import HOW_TO_LOG
from pipeline.samples import Array

MATRIX: Final = "X"
"""The one input of a model that takes a matrix."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """The same rows twice.

    Attributes:
        original: As the estimator takes them.
        inputs: As clients send them: FP32 (or FP64) or text, by name of the input.
        note: What was left out, for the report; empty if nothing was.
    """

    original: Any
    inputs: Mapping[str, Array]
    note: str = ""


def features(
    example: Any, source: SourceModel, *, by_name: bool, is_double: bool = False
) -> Features:
    """Decide between one matrix and one input per column.

    Args:
        example: A DataFrame or an array with two dimensions.
        source: For messages.
        by_name: Whether the estimator picks columns by name.
        is_double: Whether clients send numbers as FP64.

    Raises:
        ModelError: The example is of another kind, or holds what cannot be sent.
    """
    if hasattr(example, "columns"):
        return _frame_features(example, source, by_name=by_name, is_double=is_double)
    if not isinstance(example, np.ndarray) or example.ndim != 2:
        found = getattr(example, "shape", type(example).__name__)
        raise ModelError(
            f"the inputs of {source.version} are neither a DataFrame nor an array of rows and "
            f"columns: found {found}",
            hint=HOW_TO_LOG,
        )
    _expect_rows(len(example), source)
    matrix = _column(example, MATRIX, source, is_double=is_double)
    return Features(original=example, inputs={MATRIX: matrix})


def _frame_features(frame: Any, source: SourceModel, *, by_name: bool, is_double: bool) -> Features:
    columns = {name: frame[name].to_numpy() for name in frame.columns}
    is_text = {name: _is_text(values) for name, values in columns.items()}
    frame, note = _without_missing_text(frame, [name for name in columns if is_text[name]])
    _expect_rows(len(frame), source)
    inputs = {
        str(name): _column(
            frame[name].to_numpy().reshape(-1, 1), str(name), source, is_double=is_double
        )
        for name in frame.columns
    }
    if not by_name and not any(is_text.values()):
        inputs = {MATRIX: np.concatenate(list(inputs.values()), axis=1)}
    return Features(original=frame, inputs=inputs, note=note)


def _without_missing_text(frame: Any, text: list[Any]) -> tuple[Any, str]:
    """A request cannot carry a missing string, so such rows are no samples."""
    if not text:
        return frame, ""
    kept = frame[frame[text].notna().all(axis=1)]
    missing = len(frame) - len(kept)
    return kept, f"; {missing} rows with missing text left out" if missing else ""


def _expect_rows(rows: int, source: SourceModel) -> None:
    if not rows:
        raise ModelError(
            f"the input example of {source.version} has no row that a request could carry",
            hint=HOW_TO_LOG,
        )


def _is_text(values: Array) -> bool:
    if values.dtype.kind in "UT":
        return True
    if values.dtype != object:
        return False
    import pandas as pd

    present = values[~pd.isna(values)]
    return bool(present.size) and all(isinstance(item, str) for item in present.ravel())


def _column(values: Array, name: str, source: SourceModel, *, is_double: bool) -> Array:
    if _is_text(values):
        return values.astype(str).astype(object)
    if values.dtype == object:
        import pandas as pd

        try:  # nullable numbers and booleans of pandas
            values = np.where(pd.isna(values), np.nan, values).astype(np.float64)
        except (TypeError, ValueError):
            kinds = sorted({type(item).__name__ for item in values.ravel()})
            raise _unsupported(name, " and ".join(kinds), source) from None
    if values.dtype.kind not in "fiub":
        raise _unsupported(name, str(values.dtype), source)
    sent = values.astype(np.float64 if is_double else np.float32)
    if values.dtype.kind in "iu":
        rounded = np.flatnonzero(sent.astype(np.longdouble) != values.astype(np.longdouble))
        if rounded.size:
            number = values.ravel()[rounded[0]]
            raise ModelError(
                f"input {name!r} of {source.version} holds {number}, which "
                f"{'FP64' if is_double else 'FP32'} would round to {sent.ravel()[rounded[0]]:.0f}",
                hint="leave identifiers out of the features or make them text; log the column as "
                "float if rounding does not matter",
            )
    return sent


def _unsupported(name: str, kind: str, source: SourceModel) -> ModelError:
    return ModelError(
        f"input {name!r} of {source.version} holds {kind}; numbers, booleans and text are "
        "supported",
        hint="turn it into numbers or text before the model, then log it again",
    )
