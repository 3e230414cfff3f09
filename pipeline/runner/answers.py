"""From what a model's ``predict`` returns to named arrays, or the reason why no tensor carries it.

Guarantees: what is returned is carried whole or refused: no value is dropped, rounded or turned
into text; the same kind of prediction gives the same names, types and numbers of dimensions
whatever its rows are. pandas is not imported: its values are recognised by what they have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from .contract import Tensor
from .frames import Array

PREDICTION: Final = "prediction"
"""Name of an answer that has none."""

_CARRIED: Final = "biuf"


class CannotBeCarriedError(ValueError):
    """A prediction that no tensors hold."""


def named_answers(predicted: Any) -> dict[str, Array]:
    """The arrays of a prediction; rows are their first dimension, a value of a row is a column.

    Raises:
        CannotBeCarriedError: It holds objects, rows of different lengths, missing text and so on.
    """
    if hasattr(predicted, "columns") and hasattr(predicted, "iloc"):
        return {str(name): _column(predicted[name], str(name)) for name in predicted.columns}
    if hasattr(predicted, "iloc"):
        name = PREDICTION if predicted.name is None else str(predicted.name)
        return {name: _column(predicted, name)}
    if isinstance(predicted, Mapping):
        if not predicted:
            raise CannotBeCarriedError("it is an empty dict")
        return {str(name): _array(value, str(name)) for name, value in predicted.items()}
    rows = _dicts(predicted)
    if rows is not None:
        return {name: _array([row[name] for row in rows], name) for name in map(str, rows[0])}
    return {PREDICTION: _array(predicted, PREDICTION)}


def as_promised(answers: Mapping[str, Array], outputs: Sequence[Tensor]) -> dict[str, Array]:
    """The answers in the types of the contract.

    Raises:
        CannotBeCarriedError: A name, a type or a number of dimensions is another one, and not the
            same numbers in a narrower or wider type.
    """
    wanted = {output.name: output for output in outputs}
    if wanted.keys() != answers.keys():
        raise CannotBeCarriedError(
            f"it has {sorted(answers)}, the model's example gave {sorted(wanted)}"
        )
    return {name: _promised(answers[name], output) for name, output in wanted.items()}


def _promised(array: Array, output: Tensor) -> Array:
    if array.ndim != len(output.shape):
        raise CannotBeCarriedError(
            f"{output.name!r} has {array.ndim} dimensions, in the example {len(output.shape)}"
        )
    if array.dtype.name == output.dtype:
        return array
    is_number = array.dtype.kind in _CARRIED and output.dtype != "object"
    if is_number:
        with np.errstate(invalid="ignore", over="ignore"):
            cast = array.astype(output.dtype)
            # Within floating point a type says how exact numbers are, not what they are.
            is_float = array.dtype.kind == "f" and cast.dtype.kind == "f"
            if is_float or np.array_equal(cast.astype(array.dtype), array):
                return cast
    raise CannotBeCarriedError(
        f"{output.name!r} is of type {array.dtype}, in the example {output.dtype}"
    )


def _dicts(predicted: Any) -> Sequence[Mapping[Any, Any]] | None:
    """A list of dicts with the same keys: one for each row."""
    if not isinstance(predicted, (list, tuple)) or not predicted:
        return None
    if not all(isinstance(row, Mapping) and row for row in predicted):
        return None
    if any(row.keys() != predicted[0].keys() for row in predicted):
        raise CannotBeCarriedError("its rows are dicts with different keys")
    return predicted


def _column(column: Any, name: str) -> Array:
    values: Array = column.to_numpy()
    if getattr(column.dtype, "kind", "O") not in "biufOUT" or (
        values.dtype == object and column.isna().any() and not _has_text(values)
    ):
        raise CannotBeCarriedError(f"{name!r} is of type {column.dtype}")
    return _array(values, name)


def _has_text(values: Array) -> bool:
    return any(isinstance(item, str) for item in values.ravel())


def _array(value: Any, name: str) -> Array:
    if hasattr(value, "detach"):  # a tensor of PyTorch
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError:
        raise CannotBeCarriedError(f"the rows of {name!r} are of different lengths") from None
    if array.dtype == object or array.dtype.kind in "UT":
        array = _text(array, name)
    elif array.dtype.kind == "S" or array.dtype.name in ("float128", "longdouble"):
        raise CannotBeCarriedError(f"{name!r} is of type {array.dtype}")
    elif array.dtype.kind not in _CARRIED:
        raise CannotBeCarriedError(f"{name!r} is of type {array.dtype}, which no tensor has")
    if array.ndim == 0:
        return array.reshape(1)  # Triton has no scalars
    return array.reshape(-1, 1) if array.ndim == 1 else array


def _text(array: Array, name: str) -> Array:
    items = array.ravel().tolist()
    kinds = sorted({type(item).__name__ for item in items if not isinstance(item, str)})
    if kinds and all(isinstance(i, (bool, int, float, np.number, np.bool_)) for i in items):
        numbers = np.array(items)
        if numbers.dtype.kind in _CARRIED:
            return numbers.reshape(array.shape)
    if kinds:
        raise CannotBeCarriedError(
            f"{name!r} holds {' and '.join(kinds)} in its rows; tensors hold numbers, booleans or "
            "text, and no missing text"
        )
    return array.astype(object)
