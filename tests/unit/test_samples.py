from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from pipeline.samples import Samples, samples_from_bytes

SAMPLES = Samples(
    inputs={
        "City name": np.array([["Köln"], [""], ["a"]], dtype=object),
        "x": np.array([[1.5, np.nan], [0.1, -0.0], [np.inf, 3]], dtype=np.float32),
        "flag": np.array([[True], [False], [True]]),
    },
    outputs={"label": np.array([1, 2, 3], dtype=np.int64)},
)


def test_saving_and_loading_is_the_identity() -> None:
    loaded = samples_from_bytes(SAMPLES.to_bytes())
    for kept, original in ((loaded.inputs, SAMPLES.inputs), (loaded.outputs, SAMPLES.outputs)):
        assert kept.keys() == original.keys()
        for name, array in original.items():
            assert kept[name].dtype == array.dtype
            np.testing.assert_array_equal(kept[name], array)


def test_same_samples_give_the_same_bytes() -> None:
    assert SAMPLES.to_bytes() == samples_from_bytes(SAMPLES.to_bytes()).to_bytes()


def test_head_and_repeat_keep_rows_together() -> None:
    assert SAMPLES.rows == 3
    assert SAMPLES.head(2).rows == 2
    assert SAMPLES.repeat(2).outputs["label"].tolist() == [1, 2, 3, 1, 2, 3]


def test_pickled_objects_are_refused() -> None:
    stream = io.BytesIO()
    arrays: dict[str, Any] = {"input:x": np.array([{"a": 1}], dtype=object)}
    np.savez(stream, **arrays)
    with pytest.raises(ValueError, match="allow_pickle"):
        samples_from_bytes(stream.getvalue())
