"""Several requests in one run of the graph, and its outputs back to where they belong.

Guarantees: only requests that can share a run are put together; rows keep their order; an output
without exactly one row per row of input is refused, since nobody could tell whose rows they are.
One request alone is passed through without a copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Feed: TypeAlias = dict[str, Array]
"""The inputs of one run, by name; with batching, the first axis of each array is the batch."""


def groups_of(feeds: Mapping[int, Feed]) -> list[list[int]]:
    """Put the keys of feeds together that have the same inputs and the same shapes per row."""
    if len(feeds) == 1:
        return [list(feeds)]
    groups: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = {}
    for position, feed in feeds.items():
        signature = tuple(sorted((name, array.shape[1:]) for name, array in feed.items()))
        groups.setdefault(signature, []).append(position)
    return list(groups.values())


def stacked(feeds: Sequence[Feed]) -> Feed:
    """Concatenate the feeds of one group along the first axis."""
    if len(feeds) == 1:
        return feeds[0]
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def rows_of(feed: Feed) -> int:
    """The batch size of a request; Triton has made sure that its inputs agree."""
    return int(next(iter(feed.values())).shape[0])


def distributed(outputs: dict[str, Array], rows: Sequence[int]) -> list[dict[str, Array]]:
    """Cut the outputs of one run into contiguous views, for each request those of its own rows.

    Raises:
        ValueError: An output does not have as many rows as went in.
    """
    total = sum(rows)
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != total:
            raise ValueError(
                f"output {name!r} has shape {list(array.shape)} for a batch of {total}"
            )
    if len(rows) == 1:
        return [outputs]
    return [
        {name: array[stop - count : stop] for name, array in outputs.items()}
        for count, stop in zip(rows, accumulate(rows), strict=True)
    ]
