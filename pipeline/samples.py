"""Golden samples: named input tensors and the source model's own predictions on them.

Kept as one ``.npz`` file without pickled objects, so reading it runs no code. Strings are kept as
NumPy text arrays and come back as object arrays of ``str``. Saving and loading is the identity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "NDArray[Any]"
_INPUT, _OUTPUT = "input:", "output:"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Inputs and expected outputs; the first dimension of every array counts the rows."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @property
    def rows(self) -> int:
        """Number of rows."""
        first = next(iter(self.inputs.values()))
        return int(first.shape[0]) if first.ndim else 1

    def head(self, rows: int) -> Samples:
        """The first rows only."""
        return Samples(
            inputs={name: array[:rows] for name, array in self.inputs.items()},
            outputs={name: array[:rows] for name, array in self.outputs.items()},
        )

    def repeat(self, times: int) -> Samples:
        """The same rows several times over, one block after another."""
        return Samples(
            inputs={name: np.concatenate([array] * times) for name, array in self.inputs.items()},
            outputs={name: np.concatenate([array] * times) for name, array in self.outputs.items()},
        )

    def take(self, rows: Array) -> Samples:
        """The rows of these numbers, in this order."""
        return Samples(
            inputs={name: array[rows] for name, array in self.inputs.items()},
            outputs={name: array[rows] for name, array in self.outputs.items()},
        )

    @property
    def nbytes(self) -> int:
        """Size in memory; of text, that of the words as they are kept."""
        arrays = (*self.inputs.values(), *self.outputs.values())
        return sum(as_stored(array).nbytes for array in arrays)

    def to_bytes(self) -> bytes:
        """Serialise as ``.npz``; equal samples give equal bytes."""
        arrays = {_INPUT + name: as_stored(array) for name, array in self.inputs.items()}
        arrays |= {_OUTPUT + name: as_stored(array) for name, array in self.outputs.items()}
        stream = BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **arrays)
        return stream.getvalue()

    def save(self, path: Path) -> Path:
        """Write the file and return its path."""
        path.write_bytes(self.to_bytes())
        return path


def stacked(parts: Sequence[Samples]) -> Samples:
    """The rows of all parts, one after another; all have the same tensors."""
    return Samples(
        inputs={n: np.concatenate([p.inputs[n] for p in parts]) for n in parts[0].inputs},
        outputs={n: np.concatenate([p.outputs[n] for p in parts]) for n in parts[0].outputs},
    )


def samples_from_bytes(data: bytes) -> Samples:
    """Read what :meth:`Samples.to_bytes` wrote.

    Raises:
        ValueError: The bytes are not such a file, or hold pickled objects.
    """
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        return Samples(
            inputs=_loaded(arrays, _INPUT),
            outputs=_loaded(arrays, _OUTPUT),
        )


def load_samples(path: Path) -> Samples:
    """Read a file that :meth:`Samples.save` wrote."""
    return samples_from_bytes(path.read_bytes())


def as_stored(array: Array) -> Array:
    """Text as NumPy text, which needs no pickle."""
    return array.astype(str) if array.dtype == object else array


def _loaded(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {
        name.removeprefix(prefix): array.astype(object) if array.dtype.kind == "U" else array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
