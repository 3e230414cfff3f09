"""Which rows are put together into one run: every size that Triton may form, each filled whole."""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.samples import Array

_ODD: Final = 7
"""No power of two, and no multiple of the width of vector instructions."""

_MOST_RUNS: Final = 4
"""Of a batch size other than the largest, which sees all rows."""

CHOSEN_ROWS: Final = 4
"""Rows that are asked alone and among others."""


def batch_sizes(largest: int) -> tuple[int, ...]:
    """One row, two, an odd number and the largest batch of the server."""
    odd = _ODD if largest > _ODD else 3
    return tuple(sorted({size for size in (1, 2, odd) if size < largest} | {largest}))


def batches(rows: int, size: int, *, largest: int) -> list[Array]:
    """Row numbers of each batch; begun again from the first row where they do not fill it.

    All rows are in a batch of the largest size; of smaller ones there are a few, spread evenly.
    """
    every = -(-rows // size)
    count = every if size == largest else min(every, _MOST_RUNS)
    starts = [number * every // count * size for number in range(count)]
    return [(start + np.arange(size)) % rows for start in starts]


def among_others(rows: int, largest: int) -> list[tuple[int, Array]]:
    """A few rows, each with a batch in which it stands among different others."""
    size = min(rows, largest)
    generator = np.random.default_rng(rows)
    chosen = np.unique(np.linspace(0, rows - 1, min(rows, CHOSEN_ROWS)).astype(int))
    mixed = []
    for row in chosen:
        others = generator.permutation(np.delete(np.arange(rows), row))[: size - 1]
        mixed.append((int(row), generator.permutation(np.append(others, row))))
    return mixed
