"""Arrays with one place for each token of a text, of texts of different lengths.

Such an array is as wide as the longest text in it, so the same row is wider among others. What
stands behind a text, or in front of it where padding is on the left, is known by the name of the
array: rows are brought to one width without asking anybody, and compared there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.artifacts import Preprocessing
from pipeline.samples import Array, Samples
from pipeline.tensors import DYNAMIC, DataType, ServedTensors


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAxes:
    """Which arrays have such an axis, always the second one.

    Attributes:
        paddings: By name, what stands where a text has no token.
        pads_left: Whether that is in front of the text.
    """

    paddings: Mapping[str, Any]
    pads_left: bool

    def width(self, arrays: Mapping[str, Array]) -> int:
        """How many tokens the arrays have place for; 0 if none has such an axis."""
        return max((a.shape[1] for n, a in arrays.items() if n in self.paddings), default=0)

    def widened(self, arrays: Mapping[str, Array], width: int) -> dict[str, Array]:
        """The same arrays with places for ``width`` tokens; those with more are as they were."""
        return {name: self._widened(name, array, width) for name, array in arrays.items()}

    def stacked(self, parts: Sequence[Samples]) -> Samples:
        """The rows of all parts, one after another, at the width of the widest."""
        width = max(self.width({**part.inputs, **part.outputs}) for part in parts)
        wide = [
            (self.widened(part.inputs, width), self.widened(part.outputs, width)) for part in parts
        ]
        return Samples(
            inputs={n: np.concatenate([i[n] for i, _ in wide]) for n in parts[0].inputs},
            outputs={n: np.concatenate([o[n] for _, o in wide]) for n in parts[0].outputs},
        )

    def trimmed(self, samples: Samples) -> Samples:
        """The same rows without places that are padding in every array and row."""
        arrays = {**samples.inputs, **samples.outputs}
        used = np.zeros(self.width(arrays), bool)
        for name, padding in self.paddings.items():
            if name in arrays:
                filled = arrays[name] != padding
                used |= filled.any(axis=tuple(i for i in range(filled.ndim) if i != 1))
        places = np.flatnonzero(used)
        if not len(places):
            return samples
        kept = slice(places[0], None) if self.pads_left else slice(places[-1] + 1)
        return Samples(
            inputs={n: self._cut(n, array, kept) for n, array in samples.inputs.items()},
            outputs={n: self._cut(n, array, kept) for n, array in samples.outputs.items()},
        )

    def _cut(self, name: str, array: Array, kept: slice) -> Array:
        return array[:, kept] if name in self.paddings else array

    def _widened(self, name: str, array: Array, width: int) -> Array:
        missing = width - array.shape[1] if name in self.paddings else 0
        if missing <= 0:
            return array
        places = [(0, 0)] * array.ndim
        places[1] = (missing, 0) if self.pads_left else (0, missing)
        return np.pad(array, places, constant_values=self.paddings[name])


def token_axes(preprocessing: Preprocessing, onnx: ServedTensors) -> TokenAxes:
    """Of everything that a step and the network behind it take and give."""
    of_network = {
        spec.name: "" if spec.data_type is DataType.STRING else 0
        for spec in onnx.outputs
        if len(spec.shape) > 1 and spec.shape[1] == DYNAMIC
    }
    return TokenAxes(
        paddings=of_network | dict(preprocessing.paddings), pads_left=preprocessing.pads_left
    )
