"""One request and its answer in the JSON of the V2 inference protocol, as people write them.

A hand-written entry has no source model to compare with, so its author says what it must answer.
Guarantees: what is read fits the inputs and outputs of the model in names, types, shapes and batch;
a value of another kind, or out of range, is refused and never converted.

Source: "Tensor Data" of the Open Inference Protocol, version 2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from pipeline.samples import Array, Samples
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

GOLDEN_NAME: Final = "golden.json"
_BYTES: Final = "BYTES"
"""What the protocol calls strings."""


def golden_samples(
    text: str,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_batch_size: int,
) -> Samples:
    """Read a golden request and its answer.

    Args:
        text: ``{"inputs": [{name, shape, datatype, data}], "outputs": […]}``; what else a request
            or an answer holds is ignored, so both can be pasted as they were sent.
        inputs: What the model takes, shapes with the batch dimension.
        outputs: What it answers, likewise.
        max_batch_size: 0 for a model without batching.

    Raises:
        ValueError: Says which tensor, what is expected and what was found.
    """
    document = _document(text)
    samples = Samples(
        inputs=_arrays(document, "inputs", inputs), outputs=_arrays(document, "outputs", outputs)
    )
    if max_batch_size:
        _require_one_batch(samples, max_batch_size)
    return samples


def golden_text(samples: Samples) -> str:
    """Write a golden request and its answer; :func:`golden_samples` reads the same samples.

    Raises:
        ValueError: A value has a type that JSON or Triton cannot carry.
    """
    arrays = (("inputs", samples.inputs), ("outputs", samples.outputs))
    document = {
        kind: [_item(name, array) for name, array in tensors.items()] for kind, tensors in arrays
    }
    return json.dumps(document, ensure_ascii=False)


def _item(name: str, array: Array) -> dict[str, Any]:
    data_type = DataType.from_numpy("str" if array.dtype == object else str(array.dtype))
    if data_type is None or data_type is DataType.BF16:
        raise ValueError(f"{name!r} is {array.dtype}, which JSON cannot carry")
    return {
        "name": name,
        "datatype": _protocol_name(data_type),
        "shape": list(array.shape),
        "data": array.ravel().tolist(),
    }


def golden_template(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    """A golden file of a model to be filled in: zeros, and 1 for every free dimension."""
    document = {
        kind: [
            {
                "name": spec.name,
                "datatype": _protocol_name(spec.data_type),
                "shape": [1 if size == DYNAMIC else size for size in spec.shape],
                "data": ["…"],
            }
            for spec in specs
            if not spec.optional
        ]
        for kind, specs in (("inputs", inputs), ("outputs", outputs))
    }
    return json.dumps(document, ensure_ascii=False)


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    return document if isinstance(document, dict) else {}


def _arrays(document: dict[str, Any], kind: str, specs: Sequence[TensorSpec]) -> dict[str, Array]:
    items = document.get(kind)
    if not isinstance(items, list) or not items:
        raise ValueError(f"it has no list of {kind}")
    expected = {spec.name: spec for spec in specs}
    arrays: dict[str, Array] = {}
    for item in items:
        name = item.get("name") if isinstance(item, dict) else None
        if name not in expected or name in arrays:
            raise ValueError(
                f"{kind} of the model are {', '.join(map(repr, expected)) or 'none'}, each at most "
                f"once; found {name!r}"
            )
        arrays[name] = _array(item, expected[name], what=f"{name!r} of its {kind}")
    missing = [s.name for s in specs if s.name not in arrays and not s.optional]
    if missing:
        raise ValueError(f"{', '.join(map(repr, missing))} is missing from its {kind}")
    return arrays


def _array(item: dict[str, Any], spec: TensorSpec, *, what: str) -> Array:
    data_type = _protocol_name(spec.data_type)
    if item.get("datatype") != data_type:
        raise ValueError(f"{what} is {data_type} in the config, found {item.get('datatype')!r}")
    shape = item.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError(f"{what} needs a shape of positive numbers, found {shape!r}")
    if len(shape) != len(spec.shape) or any(
        want not in (DYNAMIC, have) for want, have in zip(spec.shape, shape, strict=True)
    ):
        wanted = ",".join("?" if size == DYNAMIC else str(size) for size in spec.shape)
        raise ValueError(f"{what} has shape [{wanted}] in the config, found {shape}")
    values = list(_flat(item.get("data", [])))
    if len(values) != math.prod(shape):
        raise ValueError(f"{what} needs {math.prod(shape)} values in data, found {len(values)}")
    return _typed(values, spec.data_type, what).reshape(shape)


def _flat(data: Any) -> Iterator[Any]:
    if isinstance(data, list):
        for item in data:
            yield from _flat(item)
    else:
        yield data


def _typed(values: list[Any], data_type: DataType, what: str) -> Array:
    wrong = [value for value in values if not _is_of(value, data_type)]
    if data_type is DataType.BF16:
        raise ValueError(f"{what} is BF16, which JSON cannot carry: let the model take FP32")
    if wrong:
        raise ValueError(f"{what} is {_protocol_name(data_type)}, found the value {wrong[0]!r}")
    return np.array(values, dtype=data_type.numpy)


def _is_of(value: Any, data_type: DataType) -> bool:
    if data_type is DataType.STRING:
        return isinstance(value, str)
    if data_type is DataType.BOOL:
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if data_type is DataType.BF16:
        return True
    if data_type.is_floating:
        return not math.isfinite(value) or abs(value) <= float(np.finfo(data_type.numpy).max)
    limits = np.iinfo(data_type.numpy)
    return isinstance(value, int) and int(limits.min) <= value <= int(limits.max)


def _require_one_batch(samples: Samples, max_batch_size: int) -> None:
    arrays = [*samples.inputs.items(), *samples.outputs.items()]
    sizes = {array.shape[0] for _name, array in arrays}
    if len(sizes) > 1:
        found = ", ".join(f"{name!r} {array.shape[0]}" for name, array in arrays)
        raise ValueError(f"all tensors need the same number of rows, found {found}")
    if max(sizes) > max_batch_size:
        raise ValueError(f"max_batch_size is {max_batch_size}, found {max(sizes)} rows")


def _protocol_name(data_type: DataType) -> str:
    return _BYTES if data_type is DataType.STRING else data_type.value
