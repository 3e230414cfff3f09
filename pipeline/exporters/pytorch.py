"""The ``pytorch`` flavor: exported programs and pickled modules, through ``torch.onnx``.

Guarantees: a dimension that the signature calls free is free in the graph, or the model is refused
with the way out; nothing of the machine that exported it stays in the graph; a model that answers
differently each time is refused, because nothing can be compared with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.artifacts import ONNX_FILE, SourceModel
from pipeline.errors import DependencyError, ModelError
from pipeline.exporters import Exported
from pipeline.exporters.logged import HOW_TO_LOG, described, expect_inputs_logged
from pipeline.exporters.torch_dimensions import expect_free_dimensions
from pipeline.exporters.torch_models import (
    Call,
    TorchModel,
    is_program,
    load_torch_model,
    sample_call,
)
from pipeline.exporters.torch_programs import quiet, save_program
from pipeline.onnx_graph import load_graph, onnx_model, rename_tensors, strip_notes
from pipeline.samples import Array, Samples

_PACKAGES: Final = ("onnx", "onnxscript", "torch")


class PytorchExporter:
    """A :class:`pipeline.exporters.Exporter` for PyTorch."""

    flavor: ClassVar[str] = "pytorch"

    def export(self, source: SourceModel, destination: Path) -> Exported:
        """Write ``onnx/model.onnx``; see the protocol."""
        if not is_program(source):  # which may carry inputs of its own
            expect_inputs_logged(source)
        try:
            import onnxscript  # noqa: F401  asked for here, so that its absence has a name
            import torch
        except ImportError as error:
            raise DependencyError(
                f"exporting the pytorch flavor needs {error.name}",
                hint="pip install 'tritonpipe[pytorch]'",
            ) from error

        folder = destination / "onnx"
        folder.mkdir()
        with quiet(), torch.no_grad():
            model = load_torch_model(source)
            call = sample_call(model, source)
            expected = _expected(model, call, source)
            save_program(_convert(model, call, source), folder / ONNX_FILE)
            _name_tensors(folder / ONNX_FILE, call, list(expected), source)
            describe = partial(
                onnx_model, folder, source=source, flavor=self.flavor, packages=_PACKAGES
            )
            onnx = describe()
            misdeclared = expect_free_dimensions(
                onnx,
                call,
                source,
                expected=expected,
                predict=lambda arrays: _predict(model, arrays, source),
                is_program=model.program is not None,
            )
            if misdeclared:
                _declare_free(onnx.file, misdeclared)
                onnx = describe()

        def ask(values: Mapping[str, Array]) -> Samples:
            inputs = {name: values[name] for name in call.names}
            with quiet(), torch.no_grad():
                outputs = _predict(model, tuple(inputs.values()), source)
            return Samples(inputs=inputs, outputs=outputs)

        example = dict(zip(call.names, call.arrays, strict=True))
        return Exported(onnx=onnx, example=example, origin=call.origin, ask=ask)


def _expected(model: TorchModel, call: Call, source: SourceModel) -> dict[str, Array]:
    try:
        first, second = (_predict(model, call.arrays, source) for _ in range(2))
    except ModelError as error:
        raise ModelError(f"{error.message} ({call.origin})", hint=error.hint) from error
    for name, array in first.items():
        if not np.array_equal(array, second[name], equal_nan=array.dtype.kind == "f"):
            raise ModelError(
                f"{source.version} answers differently each time it is asked (output {name!r}): it "
                "was logged in training mode, or draws random numbers",
                hint="call model.eval() before log_model",
            )
    return first


def _predict(model: TorchModel, arrays: tuple[Array, ...], source: SourceModel) -> dict[str, Array]:
    import torch

    try:
        result = model.module(*(torch.from_numpy(array.copy()) for array in arrays))
    except Exception as error:
        raise ModelError(
            f"{source.version} cannot predict on its inputs: {described(error)}",
            hint=HOW_TO_LOG,
        ) from error
    return {
        name: _as_array(tensor, name, source) for name, tensor in _named(result, source).items()
    }


def _named(result: Any, source: SourceModel) -> dict[str, Any]:
    """The outputs by name: of keys and fields where the model returns such, else by number."""
    import torch

    if isinstance(result, torch.Tensor):
        return {"output": result}
    if isinstance(result, Mapping):
        named = {str(key): value for key, value in result.items()}
    elif dataclasses.is_dataclass(result):
        named = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
    elif isinstance(result, (tuple, list)):
        keys = getattr(result, "_fields", None) or [f"output_{i}" for i in range(len(result))]
        named = dict(zip(keys, result, strict=True))
    else:
        named = {"": result}
    wrong = [
        f"{name} is {type(value).__name__}".strip()
        for name, value in named.items()
        if not isinstance(value, torch.Tensor)
    ]
    if wrong or not named:
        raise ModelError(
            f"{source.version} returns {'; '.join(wrong) or 'nothing'}; a tensor, or a tuple or "
            "dict of tensors is supported",
            hint="wrap the model in a module whose forward returns tensors only, then log that",
        )
    return named


def _as_array(tensor: Any, name: str, source: SourceModel) -> Array:
    try:
        array: Array = tensor.detach().numpy()
    except TypeError as error:
        raise ModelError(
            f"output {name!r} of {source.version} has the type {tensor.dtype}, which NumPy lacks",
            hint="cast it to float32 at the end of forward, then log the model again",
        ) from error
    return array


def _convert(model: TorchModel, call: Call, source: SourceModel) -> Any:
    import torch

    try:
        if model.program is not None:
            return torch.onnx.export(model.program, dynamo=True, verbose=False)
        tensors = tuple(torch.from_numpy(array) for array in _traceable(call))
        return torch.onnx.export(
            model.module,
            tensors,
            dynamo=True,
            verbose=False,
            dynamic_shapes=tuple(
                dict.fromkeys(sorted(free), torch.export.Dim.AUTO) for free in call.free
            ),
        )
    except Exception as error:
        raise ModelError(
            f"torch.onnx cannot convert {source.version}, a {type(model.module).__name__}: "
            f"{described(error.__cause__ or error)}",
            hint="make torch.onnx.export(model, args, dynamo=True) work, or export to ONNX "
            "yourself and log it with mlflow.onnx",
        ) from error


def _traceable(call: Call) -> Iterator[Array]:
    """The inputs with two rows where there was one: torch takes a size of 1 for a constant."""
    for array, free in zip(call.arrays, call.free, strict=True):
        repeats = [2 if axis in free and size == 1 else 1 for axis, size in enumerate(array.shape)]
        yield np.tile(array, repeats)


def _name_tensors(file: Path, call: Call, outputs: list[str], source: SourceModel) -> None:
    import onnx

    graph = load_graph(file)
    found = len(graph.graph.input), len(graph.graph.output)
    if found != (len(call.names), len(outputs)):
        raise ModelError(
            f"the graph of {source.version} has {found[0]} inputs and {found[1]} outputs, expected "
            f"{len(call.names)} and {len(outputs)}"
        )
    strip_notes(graph)
    rename_tensors(graph, call.names, outputs)
    onnx.save(graph, str(file))


def _declare_free(file: Path, dimensions: set[tuple[str, int]]) -> None:
    import onnx

    graph = load_graph(file)
    for value in graph.graph.output:
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if (value.name, axis) in dimensions:
                size.ClearField("value")
    # What is declared of inner tensors is as wrong, and needed by nobody.
    graph.graph.ClearField("value_info")
    onnx.save(graph, str(file))
