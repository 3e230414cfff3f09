"""The ``onnx`` flavor: the logged graph itself, with its external data.

Guarantees: the graph is the author's, byte for byte unless a data file had to be renamed, and its
operator set is untouched; every data file that the graph names comes along, and none from outside
the model's folder; the expected outputs are what ONNX Runtime computes from the logged files
without rewriting them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.artifacts import ONNX_FILE, SourceModel
from pipeline.errors import ModelError
from pipeline.exporters import Exported
from pipeline.exporters.logged import (
    GENERATED_ROWS,
    HOW_TO_LOG,
    LOGGED_ORIGIN,
    OTHER_SIZE,
    described,
    generated_array,
    input_example,
)
from pipeline.onnx_graph import OnnxSession, all_tensors, load_graph, onnx_model, tensor_specs
from pipeline.samples import Array, Samples
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

_PACKAGES: Final = ("onnx", "onnxruntime")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_LOCATION: Final = "location"
_GRAPH_ORIGIN: Final = "generated from the inputs of the graph, no input example was logged"


class OnnxExporter:
    """A :class:`pipeline.exporters.Exporter` that passes graphs through."""

    flavor: ClassVar[str] = "onnx"

    def export(self, source: SourceModel, destination: Path) -> Exported:
        """Write ``onnx/model.onnx`` with its data files; see the protocol."""
        original = _graph_file(source)
        folder = destination / "onnx"
        folder.mkdir()
        _copy(original, folder, source)
        onnx = onnx_model(folder, source=source, flavor=self.flavor, packages=_PACKAGES)
        _expect_numpy_types((*onnx.inputs, *onnx.outputs), source)
        example, origin = _inputs(onnx.inputs, source)
        session = _session(original, source)

        def ask(values: Mapping[str, Array]) -> Samples:
            inputs = _as_inputs(values, onnx.inputs, source)
            return Samples(inputs=inputs, outputs=_expected(session, inputs, origin, source))

        return Exported(onnx=onnx, example=example, origin=origin, ask=ask)


def _graph_file(source: SourceModel) -> Path:
    from mlflow.models import Model

    data = str(Model.load(str(source.path)).flavors["onnx"].get("data", ONNX_FILE))
    file = _inside(source.path, source.path, data, source)
    if file.is_dir():  # as MLflow 1 wrote it
        file /= ONNX_FILE
    return file


def _inside(root: Path, folder: Path, name: str, source: SourceModel) -> Path:
    """The file of that name below ``folder``; links and ``..`` may not lead out of ``root``."""
    path = folder / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise ModelError(
            f"{source.version} refers to the file {name!r}, which is outside the model's folder",
            hint="save the graph with its data beside it, then log it again",
        )
    if not path.exists():
        raise ModelError(
            f"{source.version} refers to the file {name!r}, which was not logged with it",
            hint="log the graph with mlflow.onnx, which keeps external data beside it",
        )
    return path


def _copy(original: Path, folder: Path, source: SourceModel) -> None:
    """Copy graph and data files, flat, under names that a model repository can hold."""
    graph = load_graph(original)
    tensor_specs(graph)  # refuses sequences and maps before anything large is copied
    references = [
        entry
        for tensor in all_tensors(graph)
        for entry in tensor.external_data
        if entry.key == _LOCATION
    ]
    names = _safe_names({entry.value for entry in references})
    for logged, safe in names.items():
        shutil.copyfile(_inside(source.path, original.parent, logged, source), folder / safe)
    if all(logged == safe for logged, safe in names.items()):
        shutil.copyfile(original, folder / ONNX_FILE)
        return
    for entry in references:
        entry.value = names[entry.value]
    (folder / ONNX_FILE).write_bytes(graph.SerializeToString(deterministic=True))


def _safe_names(logged: Iterable[str]) -> dict[str, str]:
    taken = {ONNX_FILE}
    names: dict[str, str] = {}
    for name in sorted(logged):
        stem = _UNSAFE.sub("_", PurePosixPath(name).name).lstrip(".") or "data"
        safe, number = stem, 1
        while safe in taken:
            safe, number = f"{number}-{stem}", number + 1
        names[name] = safe
        taken.add(safe)
    return names


def _expect_numpy_types(specs: Iterable[TensorSpec], source: SourceModel) -> None:
    for spec in specs:
        if spec.data_type is DataType.BF16:
            raise ModelError(
                f"{spec.name!r} of {source.version} is BF16, of which no samples can be kept",
                hint="cast it to FP32 at the border of the graph, then log it again",
            )


def _inputs(specs: tuple[TensorSpec, ...], source: SourceModel) -> tuple[dict[str, Array], str]:
    """Values for the inputs; optional ones only if they were logged."""
    logged = input_example(source)
    if logged is None:
        required = [spec for spec in specs if not spec.optional]
        return {spec.name: _generated(spec) for spec in required}, _GRAPH_ORIGIN
    return _as_inputs(_values_by_name(logged, specs), specs, source), LOGGED_ORIGIN


def _as_inputs(
    values: Mapping[str, Array], specs: tuple[TensorSpec, ...], source: SourceModel
) -> dict[str, Array]:
    known = {spec.name: spec for spec in specs}
    missing = [spec.name for spec in specs if not spec.optional and spec.name not in values]
    strange = [name for name in values if name not in known]
    if missing or strange:
        raise ModelError(
            f"the input example of {source.version} does not fit its graph: "
            f"missing {missing or 'nothing'}, not in the graph {strange or 'nothing'}",
            hint="log an input_example that is a dict with one array per input of the graph",
        )
    return {name: _as_input(value, known[name], source) for name, value in values.items()}


def _values_by_name(logged: Any, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    if hasattr(logged, "columns"):
        required = [spec for spec in specs if not spec.optional]
        if len(required) == 1 and required[0].name not in logged.columns:
            return {required[0].name: logged.to_numpy()}
        return {str(name): logged[name].to_numpy() for name in logged.columns}
    if isinstance(logged, Mapping):
        return {str(name): np.asarray(value) for name, value in logged.items()}
    return {specs[0].name: np.asarray(logged)}


def _as_input(value: Array, spec: TensorSpec, source: SourceModel) -> Array:
    if value.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] in (1, DYNAMIC):
        value = value.reshape(-1, 1)  # a column of a DataFrame
    try:
        if spec.data_type is DataType.STRING:
            return value.astype(str).astype(object)
        return value.astype(spec.data_type.numpy)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"input {spec.name!r} of {source.version} is {spec.data_type.value}, its input example "
            f"is {value.dtype}: {described(error)}",
            hint=HOW_TO_LOG,
        ) from error


def _generated(spec: TensorSpec) -> Array:
    sizes = (GENERATED_ROWS, *[OTHER_SIZE] * len(spec.shape))
    shape = tuple(sizes[axis] if size == DYNAMIC else size for axis, size in enumerate(spec.shape))
    return generated_array(np.dtype(spec.data_type.numpy), shape, salt=spec.name)


def _session(original: Path, source: SourceModel) -> OnnxSession:
    try:
        return OnnxSession(original, is_optimised=False)
    except Exception as error:
        raise ModelError(
            f"ONNX Runtime cannot load {source.version} as it was logged: {described(error)}",
            hint="check the graph with onnxruntime, then log it again",
        ) from error


def _expected(
    session: OnnxSession, inputs: Mapping[str, Array], origin: str, source: SourceModel
) -> dict[str, Array]:
    try:
        return session.run(inputs)
    except Exception as error:
        raise ModelError(
            f"ONNX Runtime cannot run {source.version} as it was logged ({origin}): "
            f"{described(error)}",
            hint="check the graph with onnxruntime; log it with an input_example that fits it",
        ) from error
