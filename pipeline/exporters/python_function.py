"""Packs a model with its own packages and our runner, for Triton's Python backend.

This is the way of a model that no exporter can convert, if somebody has allowed its code in the
server. Guarantees: the model is loaded by MLflow in a process that has its packages and nothing
else; a model that answers differently when it is asked twice is refused, since nothing could be
compared with it; the same model and packages give the same digest.

Beside the packed model stays the original: the fetched folder, loaded directly, asked in the form
in which the example was logged. What clients send goes through tensors, archives and batches.
"""

from __future__ import annotations

import dataclasses
import platform
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline import __version__
from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.python_inputs import PythonInputs, python_inputs
from pipeline.manifest import digest_folder, digest_of_files
from pipeline.packed_models import PackedModel, PythonPackages
from pipeline.packing import digest_of_file, write_packed
from pipeline.runner.contract import FRAME, Contract, Tensor
from pipeline.runner.packed import ENVIRONMENT_FILE, MODEL_FILE, PACKAGE
from pipeline.runner.supervisor import (
    ModelDiedError,
    ModelRefusedError,
    Supervisor,
    interpreter_of,
)
from pipeline.samples import Array, Samples
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

_CLOSE: Final = 1e-6
_HINT: Final = (
    "let predict return a DataFrame, an array, or a dict of arrays of numbers, booleans or text, "
    "with one row for each row that it is given; then log the model again"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """A packed model beside its :class:`pipeline.exporters.Original`; notes are for the report."""

    served: PackedModel
    example: Any
    origin: str
    ask: Callable[[Any], Samples]
    notes: tuple[str, ...]
    preprocessing: None = None


def pack(
    source: SourceModel,
    packages: PythonPackages,
    destination: Path,
    *,
    flavor: str,
    load_seconds: float,
    request_seconds: float,
    stack: ExitStack,
) -> Packed:
    """Write the version folder into ``destination/packed``, and keep the original running.

    Args:
        source: The fetched model.
        packages: Its packages.
        destination: An empty folder.
        flavor: What the lineage calls it.
        load_seconds: How long a server may load it.
        request_seconds: How long it may take for an answer.
        stack: Ends the original when it is closed.

    Raises:
        ModelError: It cannot be loaded or asked, or answers what no tensors carry.
    """
    inputs = python_inputs(source)
    folder = destination / "packed"
    folder.mkdir()
    shutil.copyfile(packages.archive, folder / ENVIRONMENT_FILE)
    contract = Contract(
        form=inputs.form,
        inputs=tuple(_tensor(spec) for spec in inputs.specs),
        outputs=(),
        is_batching=False,
        python=packages.python_version,
        machine=platform.machine(),
        environment_sha256=digest_of_file(folder / ENVIRONMENT_FILE),
        load_seconds=load_seconds,
        request_seconds=request_seconds,
    )
    head = _rows(inputs, 1)
    sent = inputs.sent(head)
    write_packed(folder, source.path, contract, sent)
    original = _Original(source, packages, inputs, folder / MODEL_FILE, contract)
    stack.callback(original.close)
    outputs, is_batching = _outputs(original, inputs, source)
    contract = dataclasses.replace(
        contract, outputs=tuple(_tensor(spec) for spec in outputs), is_batching=is_batching
    )
    write_packed(folder, source.path, contract, sent)
    packed = PackedModel(
        path=folder,
        inputs=inputs.specs,
        outputs=outputs,
        is_batching=is_batching,
        digest=digest_of_files(digest_folder(folder)),
        source_digest=source.digest,
        flavor=flavor,
        tools={
            "tritonpipe": __version__,
            "python": packages.python_version,
            **dict(line.split("==", 1) for line in packages.installed),
        },
    )

    def ask(values: Any) -> Samples:
        values, _ = inputs.carried(values)
        return Samples(inputs=inputs.sent(values), outputs=original.predict(values, outputs))

    return Packed(
        served=packed,
        example=inputs.example,
        origin=inputs.origin,
        ask=ask,
        notes=inputs.notes,
    )


class _Original:
    """The fetched model in a process with its packages, asked in the form of its example."""

    def __init__(
        self,
        source: SourceModel,
        packages: PythonPackages,
        inputs: PythonInputs,
        code: Path,
        contract: Contract,
    ) -> None:
        self._source, self._inputs = source, inputs
        scratch = Path(tempfile.mkdtemp())
        own_code = scratch / code.name  # the packed one is written again while this runs
        shutil.copyfile(code, own_code)
        try:
            self._supervisor = Supervisor(
                python=interpreter_of(packages.python_version),
                code=own_code,
                package=PACKAGE,
                packages=packages.folder,
                model=source.path,
                scratch=scratch,
                load_seconds=contract.load_seconds,
                request_seconds=contract.request_seconds,
            )
            self._supervisor.start()
        except ModelDiedError as error:
            raise ModelError(
                f"{source.version} cannot be loaded with its own packages: {error}",
                hint="its requirements.txt must name everything that it needs: log it again with "
                "pip_requirements=[...], or its own code with code_paths=[...]",
            ) from error

    def predict(self, values: Any, outputs: tuple[TensorSpec, ...] | None) -> dict[str, Array]:
        """What it answers; in the types of the outputs where they are known."""
        fields: dict[str, object] = {"form": self._inputs.form}
        if self._inputs.form == FRAME:
            arrays = {str(name): _plain(values[name]) for name in values.columns}
            fields["dtypes"] = {
                str(name): str(values[name].dtype)
                for name in values.columns
                if getattr(values[name].dtype, "kind", "O") in "biuf"
            }
        else:
            arrays = self._inputs.sent(values)
        if outputs is not None:
            fields["outputs"] = [[s.name, s.data_type.numpy, list(s.shape)] for s in outputs]
        try:
            return dict(self._supervisor.ask(arrays, fields))
        except (ModelRefusedError, ModelDiedError) as error:
            raise ModelError(
                f"{self._source.version} cannot predict: {error}", hint=_HINT
            ) from error

    def close(self) -> None:
        """End its process."""
        self._supervisor.close()


def _plain(column: Any) -> Array:
    """A column as an array that can be sent, whatever it is kept in."""
    if getattr(column.dtype, "kind", "O") not in "biuf":
        return np.array(column.tolist(), dtype=object)
    if isinstance(column.dtype, np.dtype):
        values: Array = column.to_numpy()
        return values
    nullable: Array = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return nullable


def _outputs(
    original: _Original, inputs: PythonInputs, source: SourceModel
) -> tuple[tuple[TensorSpec, ...], bool]:
    """What the model answers to its example, and whether it answers row by row."""
    answers = original.predict(inputs.example, None)
    again = original.predict(inputs.example, None)
    for name in answers:
        if name not in again or not _agree(answers[name], again[name]):
            raise ModelError(
                f"{source.version} answers differently when it is asked twice: output {name!r} of "
                "the same rows changes, so nothing can be compared with it",
                hint="make it deterministic: fix the seed inside predict, keep no state between "
                "calls, and leave out what changes with time",
            )
    other_rows = 2 if _row_count(inputs) == 1 else 1
    others = original.predict(_rows(inputs, other_rows), None) if inputs.has_rows else answers
    if others.keys() != answers.keys():
        raise ModelError(
            f"{source.version} answers with {sorted(answers)} to its example and with "
            f"{sorted(others)} to {other_rows} of its rows",
            hint=_HINT,
        )
    is_batching = inputs.has_rows and all(
        array.ndim > 0
        and len(array) == _row_count(inputs)
        and others[name].ndim == array.ndim
        and len(others[name]) == other_rows
        for name, array in answers.items()
    )
    specs = []
    for name, array in answers.items():
        data_type = DataType.from_numpy(array.dtype.name)
        if data_type is None or not array.size:
            raise ModelError(
                f"output {name!r} of {source.version} has the type {array.dtype} and the shape "
                f"{list(array.shape)}: Triton cannot carry it",
                hint=_HINT,
            )
        shapes = [s if s == o else DYNAMIC for s, o in zip(array.shape, others[name].shape)]  # noqa: B905  other ranks are refused later
        if is_batching:
            shapes[0] = DYNAMIC
        specs.append(TensorSpec(name=name, data_type=data_type, shape=tuple(shapes)))
    return tuple(specs), is_batching


def _agree(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind == "f":
        return bool(np.allclose(one, other, rtol=_CLOSE, atol=_CLOSE, equal_nan=True))
    return bool(np.array_equal(one, other))


def _row_count(inputs: PythonInputs) -> int:
    if isinstance(inputs.example, Mapping):
        return len(next(iter(inputs.example.values())))
    return len(inputs.example)


def _rows(inputs: PythonInputs, count: int) -> Any:
    """So many rows of the example, begun again where it has fewer; all where there are no rows."""
    if not inputs.has_rows:
        return inputs.example
    numbers = np.arange(count) % _row_count(inputs)
    if isinstance(inputs.example, Mapping):
        return {name: np.asarray(array)[numbers] for name, array in inputs.example.items()}
    if hasattr(inputs.example, "iloc"):
        return inputs.example.iloc[numbers].reset_index(drop=True)
    return inputs.example[numbers]


def _tensor(spec: TensorSpec) -> Tensor:
    return Tensor(name=spec.name, dtype=spec.data_type.numpy, shape=spec.shape)
