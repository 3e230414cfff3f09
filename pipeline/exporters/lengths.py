"""Which dimensions of a graph are free, and which of them must change together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.artifacts import OnnxModel
from pipeline.onnx_graph import load_graph
from pipeline.samples import Array
from pipeline.tensors import DYNAMIC, ServedTensors

WANTED_SIZES: Final = 3
"""So many other sizes are proof that a dimension is free ..."""

FEWEST_SIZES: Final = 2
"""... and with fewer it is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeAxes:
    """Dimensions of one size.

    Attributes:
        of: Dimensions by name of the input.
        size: Their size in the example.
    """

    of: Mapping[str, tuple[int, ...]]
    size: int

    @property
    def is_batch(self) -> bool:
        """Whether it is the first dimension of every input that has it."""
        return all(axes == (0,) for axes in self.of.values())

    @property
    def other_sizes(self) -> tuple[int, ...]:
        """Sizes to try, in order: shorter, longer, and what a model may ask for instead.

        Some models take only sizes above that of a window, or multiples of a power of two.
        """
        n = self.size
        sizes = (n // 2, 2 * n + 1, 1, n + 1, n - 1, 2 * n, 4 * n, n + 8, n + 32)
        return tuple(dict.fromkeys(size for size in sizes if size > 0 and size != n))

    def __str__(self) -> str:
        places = [f"dimension {a} of {name!r}" for name, axes in self.of.items() for a in axes]
        return " and ".join(places)


def free_axes(onnx: ServedTensors, arrays: Mapping[str, Array]) -> tuple[FreeAxes, ...]:
    """The free dimensions of these inputs; those that the graph calls alike together.

    Those of one number and size come once more all together, whatever they are called: a mask is as
    long as its sequence, and some exporters give each its own name.
    """
    symbols = _symbols(onnx)
    alike: dict[tuple[str, int], dict[str, tuple[int, ...]]] = {}
    parallel: dict[tuple[int, int], dict[str, tuple[int, ...]]] = {}
    for spec in onnx.inputs:
        if spec.name not in arrays:
            continue
        for axis, declared in enumerate(spec.shape):
            size = arrays[spec.name].shape[axis]
            if declared != DYNAMIC or not size:
                continue
            symbol = symbols.get((spec.name, axis)) or f"{spec.name} {axis}"
            of = alike.setdefault((symbol, size), {})
            of[spec.name] = (*of.get(spec.name, ()), axis)
            parallel.setdefault((axis, size), {})[spec.name] = (axis,)
    groups = [FreeAxes(of=of, size=size) for (_, size), of in alike.items()]
    known = [group.of for group in groups]
    groups += [FreeAxes(of=of, size=size) for (_, size), of in parallel.items() if of not in known]
    return tuple(groups)


def _symbols(onnx: ServedTensors) -> dict[tuple[str, int], str]:
    if not isinstance(onnx, OnnxModel):
        return {}
    graph = load_graph(onnx.file).graph
    return {
        (value.name, axis): size.dim_param
        for value in graph.input
        for axis, size in enumerate(value.type.tensor_type.shape.dim)
    }
