"""What clients send to a model that is served by its own code, decided by its signature.

The signature counts first, because MLflow enforces it when the model predicts; without one the
types of the input example do. Guarantees: what tensors cannot carry is refused by name and with the
reason, never converted; a value that a client would send otherwise than it was logged is found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.columns import MATRIX
from pipeline.exporters.logged import HOW_TO_LOG, example_or_generated, input_schema
from pipeline.runner.contract import ARRAY, ARRAYS, FRAME
from pipeline.samples import Array
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

_COLUMNS: Final = {
    "boolean": DataType.BOOL,
    "integer": DataType.INT32,
    "long": DataType.INT64,
    "float": DataType.FP32,
    "double": DataType.FP64,
    "string": DataType.STRING,
}
_HINT: Final = "turn it into numbers, booleans or text outside of the model, then log it again"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PythonInputs:
    """How a model is asked.

    Attributes:
        form: One of :data:`pipeline.runner.contract.FORMS`.
        specs: What clients send, in order.
        example: In the form in which MLflow gives an example back, and only what is sent.
        origin: Where the example comes from.
        notes: What clients cannot send, for the report.
    """

    form: str
    specs: tuple[TensorSpec, ...]
    example: Any
    origin: str
    notes: tuple[str, ...] = ()

    @property
    def has_rows(self) -> bool:
        """Whether the first dimension of every input is free."""
        return all(spec.has_dynamic_batch for spec in self.specs)

    def sent(self, values: Any) -> dict[str, Array]:
        """Values in the form of the example as tensors, by name.

        Raises:
            ModelError: A value cannot be carried.
        """
        if self.form == FRAME:
            return {s.name: _column(values[s.name], s) for s in self.specs}
        arrays = values if isinstance(values, Mapping) else {self.specs[0].name: values}
        named = {str(name): array for name, array in arrays.items()}
        return {s.name: _exact(np.asarray(named[s.name]), s) for s in self.specs}

    def carried(self, values: Any) -> tuple[Any, str]:
        """Without the rows that have missing text, which no request carries; and a note."""
        texts = [s.name for s in self.specs if s.data_type is DataType.STRING]
        if self.form != FRAME or not texts:
            return values, ""
        kept = values[values[texts].notna().all(axis=1)]
        missing = len(values) - len(kept)
        return kept, f"; {missing} rows with missing text left out" if missing else ""


def python_inputs(source: SourceModel) -> PythonInputs:
    """Read signature and example.

    Raises:
        ModelError: There is neither, or an input is nothing that tensors carry.
    """
    example, origin = example_or_generated(source)
    schema = input_schema(source)
    if hasattr(example, "columns"):
        example = example.rename(columns=str)
        specs = (
            [_spec_of_values(name, example[name].to_numpy(), source) for name in example.columns]
            if schema is None
            else _specs_of_columns(schema, list(example.columns), source)
        )
        names = [spec.name for spec in specs]
        form, example = FRAME, example[names]
    elif isinstance(example, (np.ndarray, dict)):
        arrays = example if isinstance(example, dict) else {MATRIX: example}
        form = ARRAYS if isinstance(example, dict) else ARRAY
        specs = (
            [_tensor_of_values(str(name), np.asarray(a), source) for name, a in arrays.items()]
            if schema is None
            else _specs_of_tensors(schema, arrays, source)
        )
    else:
        raise ModelError(
            f"the input example of {source.version} is a {type(example).__name__}; Triton carries "
            "DataFrames column by column, arrays, and dicts of arrays",
            hint=HOW_TO_LOG,
        )
    inputs = PythonInputs(
        form=form, specs=tuple(specs), example=example, origin=origin, notes=_notes(source)
    )
    example, note = inputs.carried(example)
    if form == FRAME and not len(example):
        raise ModelError(
            f"the input example of {source.version} has no row that a request could carry",
            hint=HOW_TO_LOG,
        )
    return PythonInputs(
        form=form, specs=inputs.specs, example=example, origin=origin + note, notes=inputs.notes
    )


def _notes(source: SourceModel) -> tuple[str, ...]:
    from mlflow.models import Model

    signature = Model.load(str(source.path)).signature
    params = getattr(signature, "params", None)
    names = [param.name for param in params] if params else []
    return (f"parameters {', '.join(names)}: clients get their defaults",) if names else ()


def _specs_of_columns(schema: Any, columns: list[str], source: SourceModel) -> list[TensorSpec]:
    if schema.is_tensor_spec():
        return [_spec_of_tensor(spec, spec.name or MATRIX, source) for spec in schema.inputs]
    specs = []
    for number, column in enumerate(schema.inputs):
        name = str(number if column.name is None else column.name)
        if name not in columns and not column.required:
            continue  # the model was logged without it, too
        data_type = _COLUMNS.get(getattr(column.type, "name", ""))
        if data_type is None:
            raise _refused(f"{name!r}", f"of type {column.type}", source)
        specs.append(TensorSpec(name=name, data_type=data_type, shape=(DYNAMIC, 1)))
    return specs


def _specs_of_tensors(
    schema: Any, arrays: Mapping[Any, Array], source: SourceModel
) -> list[TensorSpec]:
    if not schema.is_tensor_spec():
        raise _refused("the input", "an array, and its signature one of columns", source)
    names = list(arrays)
    return [
        _spec_of_tensor(spec, str(spec.name or names[number]), source)
        for number, spec in enumerate(schema.inputs)
    ]


def _spec_of_tensor(spec: Any, name: str, source: SourceModel) -> TensorSpec:
    data_type = DataType.from_numpy(str(spec.type))
    if data_type is None or not spec.shape:
        raise _refused(f"{name!r}", f"of type {spec.type} and shape {spec.shape}", source)
    return TensorSpec(name=name, data_type=data_type, shape=tuple(spec.shape))


def _tensor_of_values(name: str, array: Array, source: SourceModel) -> TensorSpec:
    spec = _spec_of_values(name, array, source)
    return TensorSpec(name=name, data_type=spec.data_type, shape=(DYNAMIC, *array.shape[1:]))


def _spec_of_values(name: str, values: Array, source: SourceModel) -> TensorSpec:
    data_type = DataType.from_numpy(str(values.dtype))
    if values.dtype.kind in "OT":
        present = [i for i in values.ravel().tolist() if i is not None and i == i]
        data_type = DataType.STRING if all(isinstance(i, str) for i in present) else None
    if data_type is None:
        raise _refused(f"{name!r}", f"of type {values.dtype}", source)
    return TensorSpec(name=name, data_type=data_type, shape=(DYNAMIC, 1))


def _column(column: Any, spec: TensorSpec) -> Array:
    kind = getattr(column.dtype, "kind", "O")
    if spec.data_type is DataType.STRING:
        return np.array(column.tolist(), dtype=object).reshape(-1, 1)
    if kind in "biuf" and not isinstance(column.dtype, np.dtype):  # nullable types of pandas
        values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    else:
        values = column.to_numpy()
    return _exact(values.reshape(-1, 1), spec)


def _exact(array: Array, spec: TensorSpec) -> Array:
    if spec.data_type is DataType.STRING:
        return array.astype(object)
    try:
        with np.errstate(invalid="ignore", over="ignore"):
            cast = array.astype(spec.data_type.numpy)
            is_float = cast.dtype.kind == "f" and array.dtype.kind == "f"
            same = is_float or bool(np.array_equal(cast.astype(array.dtype), array))
    except (TypeError, ValueError):
        same = False
    if not same:
        raise ModelError(
            f"input {spec.name!r} holds {array.dtype}, which {spec.data_type.value} of its "
            "signature does not carry exactly",
            hint=HOW_TO_LOG,
        )
    return cast


def _refused(what: str, kind: str, source: SourceModel) -> ModelError:
    return ModelError(
        f"input {what} of {source.version} is {kind}: Triton carries tensors of numbers, booleans "
        "and text",
        hint=_HINT,
    )
