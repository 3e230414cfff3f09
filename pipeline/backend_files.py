"""Whether a version folder holds what its config's backend will look for.

Triton finds out when it loads: the Python backend waits for a ``model.py`` that is missing without
a limit, and polls nothing meanwhile. Guarantees: nothing of the folder is ever imported or run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.artifacts import ONNX_FILE
from pipeline.errors import ModelError
from pipeline.onnx_graph import load_graph, tensor_specs
from pipeline.tensors import DYNAMIC, TensorSpec

PYTHON_FILE: Final = "model.py"
_PYTHON_CLASS: Final = "TritonPythonModel"
_BACKENDS_OF_PLATFORMS: Final = {"onnxruntime_onnx": "onnxruntime"}


def file_problems(
    config: Any, folder: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> list[str]:
    """What the backend would miss or refuse in a version folder; empty if nothing.

    Args:
        config: The parsed config of a model that is no ensemble.
        folder: The version folder; its name is the version.
        inputs: As the config has them, batch dimension included, after any reshape.
        outputs: Likewise.
    """
    backend = config.backend or _BACKENDS_OF_PLATFORMS.get(config.platform, "")
    problems = list(_named_files(config, folder))
    if backend == "python":
        return problems + _python_problems(folder, config.default_model_filename or PYTHON_FILE)
    if backend == "onnxruntime":
        name = config.default_model_filename or ONNX_FILE
        is_batching = config.max_batch_size > 0
        return problems + _onnx_problems(folder, name, inputs, outputs, is_batching=is_batching)
    return problems


def _named_files(config: Any, folder: Path) -> Iterator[str]:
    """Files that Triton reads relative to the model's folder, where only versions are published."""
    for tensor in config.output:
        path = tensor.label_filename
        if path and not (path.startswith(f"{folder.name}/") and (folder.parent / path).is_file()):
            yield (
                f"label_filename of {tensor.name!r} must be a file of the version, such as "
                f"{folder.name}/labels.txt; found {path!r}"
            )
    for warmup in config.model_warmup:
        for name, item in warmup.inputs.items():
            path = item.input_data_file
            prefix = f"../{folder.name}/"
            if path and not (
                path.startswith(prefix) and (folder / path.removeprefix(prefix)).is_file()
            ):
                yield (
                    f"input_data_file of {name!r} must be a file of the version, such as "
                    f"{prefix}warmup.bin; found {path!r}"
                )


def _python_problems(folder: Path, name: str) -> list[str]:
    file = folder / name
    where = f"{folder.name}/{name}"
    if not file.is_file():
        return [f"{where} is missing: Triton would wait for it for ever, and poll nothing else"]
    try:
        tree = ast.parse(file.read_bytes(), filename=where)
        compile(tree, where, "exec")
    except (SyntaxError, ValueError) as error:
        return [f"{where} does not compile: {error}"]
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == _PYTHON_CLASS]
    if not classes:
        return [f"{where} defines no class {_PYTHON_CLASS}"]
    functions = {n.name for n in classes[-1].body if isinstance(n, ast.FunctionDef)}
    functions |= {n.name for n in classes[-1].body if isinstance(n, ast.AsyncFunctionDef)}
    # A base class may have it.
    if "execute" not in functions and not classes[-1].bases:
        return [f"{_PYTHON_CLASS} in {where} has no method execute(self, requests)"]
    return []


def _onnx_problems(
    folder: Path,
    name: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    is_batching: bool,
) -> list[str]:
    file = folder / name
    if not file.is_file():
        return [f"{folder.name}/{name} is missing"]
    try:
        graph_inputs, graph_outputs = tensor_specs(load_graph(file))
    except ModelError as error:
        return [f"{folder.name}/{name}: {error.message}"]
    problems = [
        f"input {spec.name!r} of the graph is not in the config"
        for spec in graph_inputs
        if not spec.optional and spec.name not in {i.name for i in inputs}
    ]
    for kind, specs, graph in (("input", inputs, graph_inputs), ("output", outputs, graph_outputs)):
        found = {spec.name: spec for spec in graph}
        for spec in specs:
            if spec.name not in found:
                listed = ", ".join(repr(n) for n in found) or "none"
                problems.append(f"the graph has no {kind} {spec.name!r}; it has {listed}")
            elif not _agrees(spec, found[spec.name], exact=kind == "output", batch=is_batching):
                problems.append(f"{kind} {spec} in the config is {found[spec.name]} in the graph")
    return problems


def _agrees(config: TensorSpec, graph: TensorSpec, *, exact: bool, batch: bool) -> bool:
    """The rules of Triton's ONNX Runtime backend: an input may be narrower than the graph's."""
    if config.data_type is not graph.data_type or (batch and not graph.has_dynamic_batch):
        return False
    if not graph.shape:
        return all(size == 1 for size in config.shape)
    return len(config.shape) == len(graph.shape) and all(
        have == want or (want == DYNAMIC and not exact)
        for have, want in zip(config.shape, graph.shape, strict=True)
    )
