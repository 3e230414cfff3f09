"""Reading, naming and running ONNX graphs.

Guarantees: a tensor that Triton cannot carry is refused by name; renaming changes names only, in
subgraphs too, and never makes two tensors one; what describes a folder is read from its bytes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipeline.artifacts import ONNX_FILE, OnnxModel, SourceModel
from pipeline.errors import ModelError
from pipeline.manifest import digest_folder, digest_of_files
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto

    from pipeline.samples import Array

_QUIET: Final = 3
"""ONNX Runtime's log level "error"; its warnings speak to the authors of graphs."""


def load_graph(file: Path) -> ModelProto:
    """Read a graph, leaving external data where it is.

    Raises:
        ModelError: The file is missing or not an ONNX graph.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(file), load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(f"{file.name} cannot be read as an ONNX graph: {error}") from error
    if not model.graph.output:
        raise ModelError(f"{file.name} holds no ONNX graph: it has no output")
    return model


def tensor_specs(model: ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a graph; an input with an initializer is optional.

    Raises:
        ModelError: A tensor has a type that Triton cannot carry, or its rank is unknown.
    """
    defaults = {tensor.name for tensor in model.graph.initializer}
    inputs = (_spec(value, optional=value.name in defaults) for value in model.graph.input)
    outputs = (_spec(value, optional=False) for value in model.graph.output)
    return tuple(inputs), tuple(outputs)


def rename_tensors(model: ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give the inputs and outputs of the graph these names, in order.

    An inner tensor that has one of these names already is renamed out of the way. An output that
    is an input, or is given twice, is passed through a node of its own.

    Raises:
        ModelError: Two tensors would have one name.
    """
    graph = model.graph
    repeated = sorted(name for name, n in _counted([*inputs, *outputs]).items() if n > 1)
    if repeated:
        raise ModelError(
            f"more than one input or output would be called {', '.join(map(repr, repeated))}",
            hint="rename the columns or tensors of the model, then log it again",
        )
    _separate_outputs(graph)
    wanted = [*inputs, *outputs]
    current = [value.name for value in (*graph.input, *graph.output)]
    names = dict(zip(current, wanted, strict=True))
    used = set(_names(graph))
    for name in sorted((used & set(wanted)) - set(current)):
        names[name] = _free_name(name, used | set(wanted))
        used.add(names[name])
    rename_values(graph, names)


def strip_notes(model: ModelProto) -> None:
    """Remove what exporters write about where the graph comes from.

    Stack traces and paths differ between machines and would change the digest.
    """
    items: list[Any] = [model, *model.functions]
    items += [node for function in model.functions for node in function.node]
    for scope in all_graphs(model.graph):
        values = (*scope.input, *scope.output, *scope.value_info, *scope.initializer)
        items += [scope, *scope.node, *values]
    for item in items:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every constant of a model: initializers and attributes, subgraphs and functions included."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def onnx_model(
    folder: Path, *, source: SourceModel, flavor: str, packages: Iterable[str]
) -> OnnxModel:
    """Describe a folder that holds ``model.onnx`` and its external data, after checking it.

    Args:
        folder: Holds nothing else.
        source: What the graph was made of.
        flavor: The exporter that made it.
        packages: Distributions that had a part in it; their versions are recorded.

    Raises:
        ModelError: The graph breaks the rules of ONNX, or Triton cannot carry it.
    """
    import onnx

    file = folder / ONNX_FILE
    try:
        onnx.checker.check_model(str(file))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise ModelError(
            f"the graph of {source.version} is not valid ONNX: {str(error).splitlines()[0]}"
        ) from error
    model = load_graph(file)
    inputs, outputs = tensor_specs(model)
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    return OnnxModel(
        path=folder,
        opset=opsets.get("", opsets.get("ai.onnx", 0)),
        inputs=inputs,
        outputs=outputs,
        digest=digest_of_files(digest_folder(folder)),
        source_digest=source.digest,
        flavor=flavor,
        tools={package: installed_version(package) for package in sorted(packages)},
    )


class OnnxSession:
    """A graph loaded into ONNX Runtime on the CPU."""

    def __init__(self, file: Path, *, is_optimised: bool) -> None:
        """Load the graph.

        Args:
            file: The graph; external data is found beside it.
            is_optimised: Whether ONNX Runtime may rewrite it as far as it does in the server. The
                highest level can crash on FP16 transformers: use it in a child process.
        """
        import onnxruntime

        levels = onnxruntime.GraphOptimizationLevel
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if is_optimised else levels.ORT_DISABLE_ALL
        )
        options.log_severity_level = _QUIET
        self._session: Any = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; raises whatever ONNX Runtime raises."""
        values = self._session.run(self._outputs, dict(inputs))
        return dict(zip(self._outputs, values, strict=True))


def _spec(value: ValueInfoProto, *, optional: bool) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelError(
            f"{value.name!r} is a {(kind or 'value of no type').removesuffix('_type')}, and Triton "
            "carries tensors only",
            hint="export without sequences and maps (for classifiers of skl2onnx and onnxmltools: "
            "options={'zipmap': False}), then log the model again",
        )
    tensor = value.type.tensor_type
    data_type = DataType.from_onnx(tensor.elem_type)
    if data_type is None:
        raise ModelError(
            f"{value.name!r} has the ONNX element type {_type_name(tensor.elem_type)}, which "
            "Triton cannot carry",
            hint="cast it inside the model, then log it again",
        )
    if not tensor.HasField("shape"):
        raise ModelError(
            f"{value.name!r} has no shape in the graph: Triton must know the number of dimensions",
            hint="run onnx.shape_inference over the graph, then log it again",
        )
    shape = tuple(
        size.dim_value if size.HasField("dim_value") else DYNAMIC for size in tensor.shape.dim
    )
    return TensorSpec(name=value.name, data_type=data_type, shape=shape, optional=optional)


def _type_name(number: int) -> str:
    import onnx

    names: dict[int, str] = {v: k for k, v in onnx.TensorProto.DataType.items()}
    return names.get(number, str(number))


def _counted(names: Iterable[str]) -> dict[str, int]:
    return {name: len(list(group)) for name, group in itertools.groupby(sorted(names))}


def _free_name(name: str, used: set[str]) -> str:
    stem = re.sub(r"\W", "_", name)
    candidates = (f"{stem}_{number}" for number in itertools.count(1))
    return next(candidate for candidate in candidates if candidate not in used)


def _separate_outputs(graph: GraphProto) -> None:
    import onnx

    used = set(_names(graph))
    taken = {value.name for value in graph.input}
    for value in graph.output:
        if value.name in taken:
            copy = _free_name(value.name, used)
            graph.node.append(onnx.helper.make_node("Identity", [value.name], [copy]))
            value.name = copy
        taken.add(value.name)
        used.add(value.name)


def all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph, and those inside of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from all_graphs(inner)


def _names(graph: GraphProto) -> Iterator[str]:
    for scope in all_graphs(graph):
        yield from (value.name for value in (*scope.input, *scope.output, *scope.value_info))
        yield from (tensor.name for tensor in scope.initializer)
        yield from (tensor.values.name for tensor in scope.sparse_initializer)
        for node in scope.node:
            yield from (*node.input, *node.output)


def rename_values(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names, wherever they are defined and used."""
    for scope in all_graphs(graph):
        for value in (*scope.input, *scope.output, *scope.value_info):
            value.name = names.get(value.name, value.name)
        for tensor in scope.initializer:
            tensor.name = names.get(tensor.name, tensor.name)
        for sparse in scope.sparse_initializer:
            sparse.values.name = names.get(sparse.values.name, sparse.values.name)
        for annotation in scope.quantization_annotation:
            annotation.tensor_name = names.get(annotation.tensor_name, annotation.tensor_name)
        for node in scope.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]


def _graph_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[Any]) -> Iterator[TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _graph_tensors(inner)
