"""Whether a model's config and its ONNX graph describe the same inputs and outputs.

Guarantees: a config that Triton's compiled ONNX Runtime backend refuses for its inputs and outputs
is refused here too, and *every* difference is named at once, so one look at the server's log is
enough to correct an entry. The rules are those of that backend: inputs may be narrower in the
config than in the graph, outputs are exactly as in the graph, the config may leave outputs out.

Standard library only. Configs are the JSON that Triton hands to the backend, parsed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

DYNAMIC: Final = -1

_TRITON_TYPES: Final = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
    "tensor(bfloat16)": "TYPE_BF16",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphTensor:
    """An input or output of the graph.

    Attributes:
        name: As in the graph.
        graph_type: ONNX Runtime's words for the type, such as ``tensor(float)``.
        shape: With ``DYNAMIC`` for a free dimension. Empty for a scalar, and for a shape that the
            graph does not state, which ONNX Runtime reports in the same way.
        has_default: Whether a run may leave it out, because an initializer has the same name.
    """

    name: str
    graph_type: str
    shape: tuple[int, ...]
    has_default: bool = False

    @property
    def triton_type(self) -> str | None:
        """``TYPE_FP32`` and so on; None where Triton cannot carry such a value."""
        return _TRITON_TYPES.get(self.graph_type)


def shape_from_graph(dimensions: Iterable[int | str | None]) -> tuple[int, ...]:
    """Replace symbolic and unknown dimensions by ``DYNAMIC``."""
    return tuple(size if isinstance(size, int) else DYNAMIC for size in dimensions)


def model_dims(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    """The dims that the model sees, which are those of ``reshape`` where the config has one."""
    reshape = tensor.get("reshape")
    return tuple(int(size) for size in (tensor["dims"] if reshape is None else reshape["shape"]))


def differences_from_graph(
    config: Mapping[str, Any], inputs: Sequence[GraphTensor], outputs: Sequence[GraphTensor]
) -> list[str]:
    """Compare a config with the graph; empty when they agree."""
    batches = int(config["max_batch_size"]) > 0
    return [
        *_differences_of_inputs(config["input"], {t.name: t for t in inputs}, batches=batches),
        *_differences_of_outputs(config["output"], {t.name: t for t in outputs}, batches=batches),
    ]


def _differences_of_inputs(
    configured: Sequence[Mapping[str, Any]], graph: Mapping[str, GraphTensor], *, batches: bool
) -> Iterator[str]:
    names = {tensor["name"] for tensor in configured}
    for name, tensor in graph.items():
        if name not in names and not tensor.has_default:
            yield f"input {name!r} of the graph is missing from the config"
    for item in configured:
        name = item["name"]
        if name not in graph:
            yield f"input {name!r} of the config is not in the graph, which has {_listed(graph)}"
            continue
        yield from _differences_of_presence(item, graph[name], batches=batches)
        yield from _differences_of_type("input", item, graph[name])
        yield from _differences_of_shape("input", item, graph[name], batches=batches)


def _differences_of_outputs(
    configured: Sequence[Mapping[str, Any]], graph: Mapping[str, GraphTensor], *, batches: bool
) -> Iterator[str]:
    for item in configured:
        name = item["name"]
        if name not in graph:
            yield f"output {name!r} of the config is not in the graph, which has {_listed(graph)}"
            continue
        yield from _differences_of_type("output", item, graph[name])
        if graph[name].triton_type is not None:
            yield from _differences_of_shape("output", item, graph[name], batches=batches)


def _differences_of_presence(
    item: Mapping[str, Any], tensor: GraphTensor, *, batches: bool
) -> Iterator[str]:
    is_optional = bool(item.get("optional"))
    if is_optional and not tensor.has_default:
        yield f"input {tensor.name!r} is optional in the config, the graph has no default for it"
    if tensor.has_default and not is_optional:
        yield f"input {tensor.name!r} has a default in the graph: mark it optional in the config"
    if is_optional and batches:
        yield f"input {tensor.name!r} is optional, which needs max_batch_size 0"


def _differences_of_type(kind: str, item: Mapping[str, Any], tensor: GraphTensor) -> Iterator[str]:
    if tensor.triton_type is None:
        yield (
            f"{kind} {tensor.name!r} is {tensor.graph_type} in the graph, which Triton cannot carry"
        )
    elif item["data_type"] != tensor.triton_type:
        yield (
            f"{kind} {tensor.name!r} has data type {item['data_type']} in the config"
            f" and {tensor.triton_type} in the graph"
        )


def _differences_of_shape(
    kind: str, item: Mapping[str, Any], tensor: GraphTensor, *, batches: bool
) -> Iterator[str]:
    dims = model_dims(item)
    if not tensor.shape:
        yield from _differences_without_shape(kind, dims, tensor, batches=batches)
        return
    if batches and tensor.shape[0] != DYNAMIC:
        yield (
            f"max_batch_size is above 0, but the first dimension of {kind} {tensor.name!r}"
            f" is fixed at {tensor.shape[0]} in the graph"
        )
    expected = tensor.shape[1:] if batches else tensor.shape
    if not _agree(dims, expected, exact=kind == "output"):
        batch = (DYNAMIC,) if batches else ()
        yield (
            f"{kind} {tensor.name!r} has shape {_shown(batch + dims)} in the config"
            f" and {_shown(tensor.shape)} in the graph"
        )


def _differences_without_shape(
    kind: str, dims: tuple[int, ...], tensor: GraphTensor, *, batches: bool
) -> Iterator[str]:
    """A scalar, or a shape that the graph does not state; an output may turn out to have rows."""
    if batches and kind == "input":
        yield f"max_batch_size is above 0, but input {tensor.name!r} has no dimension in the graph"
    if any(size != 1 for size in dims):
        yield (
            f"{kind} {tensor.name!r} has dims {_shown(dims)} in the config"
            " and none in the graph: only dims of 1 stand for a scalar"
        )


def _agree(dims: tuple[int, ...], expected: tuple[int, ...], *, exact: bool) -> bool:
    return len(dims) == len(expected) and all(
        have == want or (want == DYNAMIC and not exact)
        for have, want in zip(dims, expected, strict=True)
    )


def _listed(graph: Mapping[str, GraphTensor]) -> str:
    return ", ".join(repr(name) for name in graph) or "none"


def _shown(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(str(size) for size in shape) + "]"
