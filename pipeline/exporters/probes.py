"""Further inputs of the form of the example, on which the graph must agree with the original.

An example of six rows says little: no value at the border of a split, no other sequence, no missing
number. Probes are made without knowing the model, from the example and the graph alone.

Guarantees: the same export gives the same probes in every process; they are bounded in size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline.exporters import Original
from pipeline.exporters.lengths import WANTED_SIZES, free_axes
from pipeline.exporters.texts import text_variations
from pipeline.exporters.variations import resized, varied_array, varied_frame, with_missing
from pipeline.samples import Array, Samples
from pipeline.tensors import DataType, ServedTensors, TensorSpec
from pipeline.token_axes import token_axes

ROWS: Final = 128
"""Rows of a probe of a table; two of them are more than 200 rows, so that a part of them counts."""

TENSOR_ROWS: Final = 16
"""Rows of a probe of images, sequences and the like, which take longer to answer."""

FEW_ROWS: Final = 4
"""Rows of a probe of another length."""

MOST_BYTES: Final = 2 * 2**20
"""Of the samples of one probe; there are few more than eight."""

UNSEEN_WORD: Final = "never-seen-before"
_SEED: Final = 20_260_301


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """Inputs that the original is asked.

    Attributes:
        values: In the form of the example.
        origin: What they are, in words.
        group: Questions of a group stand in for each other ...
        wanted: ... until this many of the group were answered.
    """

    values: Any
    origin: str
    group: str = ""
    wanted: int = 1


def questions(
    exported: Original, answered: Samples, *, optional: frozenset[str]
) -> Iterator[Question]:
    """Everything to ask about, in the form of the example.

    Args:
        exported: The graph and the example.
        answered: The example as clients send it, and what the original says; gives sizes.
        optional: Columns that may be missing, by the signature.
    """
    if exported.preprocessing is not None:
        texts = list(next(iter(exported.example.values())).ravel())
        tokens = token_axes(exported.preprocessing, exported.served).width(answered.outputs)
        for inputs, origin in text_variations(
            exported.preprocessing,
            texts,
            lambda most: _affordable(TENSOR_ROWS, answered, larger=most / max(tokens, 1)),
        ):
            yield Question(values=inputs, origin=origin)
        return
    if hasattr(exported.example, "columns"):
        yield from _about_frames(exported.example, exported.served, answered, optional)
        return
    arrays = _arrays(exported.example, exported.served)
    if arrays is not None:
        is_single = not isinstance(exported.example, Mapping)
        for question in _about_arrays(arrays, exported.served, answered):
            values = next(iter(question.values.values())) if is_single else question.values
            yield Question(
                values=values,
                origin=question.origin,
                group=question.group,
                wanted=question.wanted,
            )


def _about_frames(
    frame: Any, onnx: ServedTensors, answered: Samples, optional: frozenset[str]
) -> Iterator[Question]:
    if not len(frame):
        return

    def varied(count: int, salt: str, *, outside: bool = False) -> Any:
        carried = _carried(onnx)
        return varied_frame(frame, count, _chance(salt), carried=carried, outside=outside)

    rows = _affordable(ROWS, answered)
    for outside in (False, True):
        where = _where(outside=outside)
        values = varied(rows, where, outside=outside)
        yield Question(values=values, origin=f"{rows} generated rows {where}")
    few = min(rows, ROWS // 4)
    numbers = [n for n in frame.columns if getattr(frame[n].dtype, "kind", "") == "f"]
    gaps = [n for n in numbers if str(n) in optional or frame[n].isna().any()]
    if gaps:
        base = varied(few, "missing")
        values = with_missing(base, gaps, _chance("gaps"))
        yield Question(values=values, origin=f"{few} generated rows with missing numbers")
    for name in frame.columns:
        is_closed = hasattr(frame[name].dtype, "categories")  # can hold no other word
        if is_closed or answered.inputs.get(str(name), np.zeros(0)).dtype != object:
            continue
        values = varied(few, f"word {name}")
        words = values[name].to_numpy(dtype=object, copy=True)
        words[: few // 2] = UNSEEN_WORD
        values[name] = type(values[name])(words, dtype=frame[name].dtype)
        yield Question(
            values=values, origin=f"{few} generated rows with a word never seen in {str(name)!r}"
        )


def _about_arrays(
    arrays: Mapping[str, Array], onnx: ServedTensors, answered: Samples
) -> Iterator[Question]:
    specs = {spec.name: spec for spec in onnx.inputs}
    if not any(array.size for array in arrays.values()):
        return
    free = [axes for axes in free_axes(onnx, arrays) if not (onnx.is_batching and axes.is_batch)]
    is_table = onnx.is_batching and not free and all(a.ndim <= 2 for a in arrays.values())
    rows = _affordable(ROWS if is_table else TENSOR_ROWS, answered)
    for outside in (False, True):
        where = _where(outside=outside)
        values = _varied(arrays, specs, onnx, rows, where, outside=outside)
        size = f"{rows} generated rows" if onnx.is_batching else "generated values"
        yield Question(values=values, origin=f"{size} {where}")
    base = _varied(arrays, specs, onnx, min(rows, FEW_ROWS), "lengths", outside=False)
    for axes in free:
        for other in axes.other_sizes:
            values = {
                name: _resized(array, axes.of.get(name, ()), other) for name, array in base.items()
            }
            yield Question(
                values=values,
                origin=f"{axes} of size {other}",
                group=str(axes),
                wanted=WANTED_SIZES,
            )


def _resized(array: Array, axes: tuple[int, ...], size: int) -> Array:
    for axis in axes:
        array = resized(array, axis, size)
    return array


def _varied(
    arrays: Mapping[str, Array],
    specs: Mapping[str, TensorSpec],
    onnx: ServedTensors,
    rows: int,
    salt: str,
    *,
    outside: bool,
) -> dict[str, Array]:
    varied = {}
    for name, array in arrays.items():
        if not array.ndim or not len(array):
            varied[name] = array
            continue
        # A fixed second dimension is one of columns; any other is of places with the same meaning.
        per_column = array.ndim == 2 and specs[name].shape[1] >= 0
        varied[name] = varied_array(
            array,
            rows if onnx.is_batching else len(array),
            _chance(salt + name),
            carried=_carried(onnx),
            per_column=per_column,
            outside=outside,
        )
    return varied


def _arrays(example: Any, onnx: ServedTensors) -> dict[str, Array] | None:
    """The example by name of the input; None if it is of an unknown form."""
    if isinstance(example, np.ndarray) and len(onnx.inputs) == 1:
        example = {onnx.inputs[0].name: example}
    names = {spec.name: len(spec.shape) for spec in onnx.inputs}
    if not isinstance(example, Mapping):
        return None
    fits = all(
        isinstance(array, np.ndarray) and names.get(str(name)) == array.ndim
        for name, array in example.items()
    )
    return {str(name): array for name, array in example.items()} if fits else None


def _affordable(rows: int, answered: Samples, *, larger: float = 1.0) -> int:
    """At most so many rows that they and their answers stay within :data:`MOST_BYTES`.

    Args:
        rows: No more than these.
        answered: Tells the size of a row.
        larger: How many times as large they are.
    """
    arrays = (*answered.inputs.values(), *answered.outputs.values())
    taken = larger * sum(_bytes(array) for array in arrays) / max(answered.rows, 1)
    return int(max(1, min(rows, MOST_BYTES // max(taken, 1))))


def _bytes(array: Array) -> int:
    if array.dtype == object:
        return 4 * sum(len(str(item)) for item in array.flat)
    return array.nbytes


def _where(*, outside: bool) -> str:
    return (
        "in and slightly outside of the range of the example"
        if outside
        else ("within the range of the example")
    )


def _carried(onnx: ServedTensors) -> np.dtype[Any]:
    """FP64 only if the graph asks for it; whatever is narrower is a part of FP32."""
    is_wide = any(spec.data_type is DataType.FP64 for spec in onnx.inputs)
    return np.dtype(np.float64 if is_wide else np.float32)


def _chance(salt: str) -> np.random.Generator:
    return np.random.default_rng([_SEED, *salt.encode()])
