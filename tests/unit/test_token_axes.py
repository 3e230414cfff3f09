from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.samples import Samples
from pipeline.token_axes import TokenAxes

PADDINGS: dict[str, Any] = {"ids": 7, "label": ""}


def samples(lengths: list[int], *, left: bool) -> Samples:
    """Rows of texts with so many tokens each, as wide as the longest."""
    width = max(lengths)
    ids, labels = np.full((len(lengths), width), 7), np.full((len(lengths), width), "", object)
    for row, length in enumerate(lengths):
        place = slice(width - length, None) if left else slice(length)
        ids[row, place] = np.arange(length) + 10 * (row + 1)
        labels[row, place] = "x"
    texts = np.array([[str(n)] for n in lengths], dtype=object)
    return Samples(inputs={"text": texts}, outputs={"ids": ids, "label": labels})


def same(one: Samples, other: Samples) -> None:
    assert list(one.inputs) == list(other.inputs)
    assert list(one.outputs) == list(other.outputs)
    for ours, theirs in ((one.inputs, other.inputs), (one.outputs, other.outputs)):
        for name, array in ours.items():
            np.testing.assert_array_equal(array, theirs[name])


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), left=st.booleans())
def test_stacking_rows_alone_gives_them_together(lengths: list[int], left: bool) -> None:
    axes = TokenAxes(paddings=PADDINGS, pads_left=left)
    together = samples(lengths, left=left)
    alone = [axes.trimmed(together.take(np.array([row]))) for row in range(len(lengths))]
    assert [axes.width(part.outputs) for part in alone] == lengths
    same(axes.stacked(alone), together)


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5), left=st.booleans())
def test_widening_and_trimming_cancel(lengths: list[int], left: bool) -> None:
    axes = TokenAxes(paddings=PADDINGS, pads_left=left)
    rows = samples(lengths, left=left)
    wide = Samples(inputs=rows.inputs, outputs=axes.widened(rows.outputs, max(lengths) + 3))
    assert axes.width(wide.outputs) == max(lengths) + 3
    same(axes.trimmed(wide), rows)


def test_other_arrays_and_wider_ones_are_left_alone() -> None:
    axes = TokenAxes(paddings={"ids": 0}, pads_left=False)
    arrays = {"ids": np.ones((2, 4)), "score": np.ones((2, 1))}
    found = axes.widened(arrays, 3)
    assert {name: array.shape for name, array in found.items()} == {"ids": (2, 4), "score": (2, 1)}


@pytest.mark.parametrize("left", [False, True])
def test_rows_of_nothing_but_padding_are_not_cut_to_nothing(left: bool) -> None:
    axes = TokenAxes(paddings={"ids": 0}, pads_left=left)
    empty = Samples(inputs={}, outputs={"ids": np.zeros((2, 3))})
    same(axes.trimmed(empty), empty)
