"""From a DataFrame, an array or a dict of arrays to the tensors that a model takes.

Guarantees: the same rows give the same tensors in whichever form they come; columns are told apart
by their names, never by their order, wherever the model was logged with names; nothing is left out
or guessed in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from pipeline.deployments.casts import array_of, cast
from pipeline.errors import RequestError
from pipeline.samples import Array
from pipeline.tensors import DYNAMIC, TensorSpec

Columns: TypeAlias = Callable[[], tuple[str, ...]]
"""Gives the names of the columns that a model was logged with, in order; none if it had none."""

_WRAPPER = "inputs"


def request_tensors(inputs: Any, specs: Sequence[TensorSpec], columns: Columns) -> dict[str, Array]:
    """The tensors of a request.

    Args:
        inputs: A DataFrame; an array, or lists that make one; or a mapping of names to arrays. A
            DataFrame with the names of the inputs as index and one column, as
            ``pandas.read_json`` makes of ``{"inputs": {NAME: [[…]]}}``, counts as such a mapping.
        specs: What the model takes, shapes with the batch dimension.
        columns: Asked only if named columns have to become one matrix.

    Raises:
        RequestError: They do not fit; says which input, what is expected and what was found.
    """
    if not specs:
        raise RequestError("the model has no inputs that are known")
    named = _named(inputs, specs)
    if named is None:
        arrays = _positional(array_of(inputs, "the input"), specs)
    elif named.keys() & {spec.name for spec in specs}:
        arrays = _by_input(named, specs, is_table=_is_frame(inputs))
    else:
        arrays = {specs[0].name: _matrix(named, specs, columns, is_table=_is_frame(inputs))}
    tensors = {spec.name: _fitted(arrays[spec.name], spec) for spec in specs if spec.name in arrays}
    _expect_same_rows(tensors, specs)
    return tensors


def _named(inputs: Any, specs: Sequence[TensorSpec]) -> dict[str, Any] | None:
    names = {spec.name for spec in specs}
    if _is_frame(inputs):
        labels = [str(column) for column in inputs.columns]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise RequestError(f"the DataFrame has the column {twice!r} more than once")
        index = list(inputs.index)
        if len(labels) == 1 and labels[0] not in names and index and names.issuperset(index):
            return dict(zip(index, inputs[inputs.columns[0]].tolist(), strict=True))
        return {label: inputs[column] for label, column in zip(labels, inputs.columns, strict=True)}
    if not isinstance(inputs, Mapping):
        return None
    named = {str(name): value for name, value in inputs.items()}
    if named.keys() == {_WRAPPER} - names and isinstance(named[_WRAPPER], Mapping):
        return {str(name): value for name, value in named[_WRAPPER].items()}
    return named


def _is_frame(inputs: Any) -> bool:
    return hasattr(inputs, "columns") and hasattr(inputs, "index")


def _by_input(
    named: Mapping[str, Any], specs: Sequence[TensorSpec], *, is_table: bool
) -> dict[str, Array]:
    known = {spec.name for spec in specs}
    missing = [spec.name for spec in specs if not spec.optional and spec.name not in named]
    # A table may have more columns than a model takes, as everywhere in MLflow.
    strange = [] if is_table else [name for name in named if name not in known]
    if missing or strange:
        raise RequestError(
            f"the model takes {_listed(specs)}; missing {_quoted(missing)}, "
            f"not known {_quoted(strange)}"
        )
    return {name: array_of(value, repr(name)) for name, value in named.items() if name in known}


def _positional(array: Array, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    required = [spec for spec in specs if not spec.optional]
    if len(required) == 1:
        return {required[0].name: array}
    are_columns = all(len(spec.shape) == 2 and spec.shape[1] == 1 for spec in specs)
    if are_columns and array.ndim == 2 and array.shape[1] == len(specs):
        return {spec.name: array[:, number] for number, spec in enumerate(specs)}
    raise RequestError(
        f"the model takes {_listed(specs)}, and an array of shape {list(array.shape)} does not say "
        "which of them it is",
        hint="send a dict with one array for each of them",
    )


def _matrix(
    named: Mapping[str, Any], specs: Sequence[TensorSpec], columns: Columns, *, is_table: bool
) -> Array:
    """Columns side by side, in the order in which the model was trained on them."""
    spec = specs[0]
    if len(specs) != 1 or len(spec.shape) != 2:
        raise RequestError(f"the model takes {_listed(specs)}; found {_quoted(list(named))}")
    names = columns()
    if not names and not is_table:
        raise RequestError(
            f"the model takes {spec}, and was logged without names of columns; found "
            f"{_quoted(list(named))}",
            hint=f"send {{{spec.name!r}: array}}, or the array alone",
        )
    missing = [name for name in names if name not in named]
    if missing:
        raise RequestError(
            f"the model was logged with the columns {_quoted(list(names))}; missing "
            f"{_quoted(missing)}"
        )
    parts = [
        cast(array_of(named[name], repr(name)), spec.data_type, repr(name))
        for name in names or named
    ]
    if any(part.shape != parts[0].shape or part.ndim != 1 for part in parts):
        shapes = ", ".join(str(list(part.shape)) for part in parts)
        raise RequestError(f"columns need one value in each row; found shapes {shapes}")
    return np.stack(parts, axis=1)


def _fitted(array: Array, spec: TensorSpec) -> Array:
    """In the type and the rank of the input."""
    if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] == 1:
        array = array.reshape(-1, 1)  # a column
    fits = array.ndim == len(spec.shape) and all(
        wanted in (DYNAMIC, found) for wanted, found in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        one = array.ndim == len(spec.shape) - 1 and spec.has_dynamic_batch
        raise RequestError(
            f"the model takes {spec}; found shape {list(array.shape)}",
            hint="send one row as a batch of one: array[None]" if one else "",
        )
    return cast(array, spec.data_type, repr(spec.name))


def _expect_same_rows(tensors: Mapping[str, Array], specs: Sequence[TensorSpec]) -> None:
    if not all(spec.has_dynamic_batch for spec in specs):
        return
    rows = {name: array.shape[0] for name, array in tensors.items()}
    if len(set(rows.values())) > 1:
        raise RequestError(f"all inputs need the same number of rows; found {rows}")
    if not any(rows.values()):
        raise RequestError("there are no rows in the input")


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(str(spec) + (" (optional)" if spec.optional else "") for spec in specs)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"
