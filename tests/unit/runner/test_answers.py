from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.runner.answers import CannotBeCarriedError, as_promised, named_answers
from pipeline.runner.contract import Tensor

COLUMN = np.array([[1.0], [2.0]])


@pytest.mark.parametrize(
    ("predicted", "expected"),
    [
        (np.array([1.0, 2.0]), {"prediction": COLUMN}),
        ([1.0, 2.0], {"prediction": COLUMN}),
        (pd.Series([1.0, 2.0]), {"prediction": COLUMN}),
        (pd.Series([1.0, 2.0], name="price"), {"price": COLUMN}),
        (pd.DataFrame({"price": [1.0, 2.0], 3: [1, 2]}), {"price": COLUMN, "3": [[1], [2]]}),
        (pd.Series(["a", "b"], dtype="string"), {"prediction": [["a"], ["b"]]}),
        (pd.Series([1, 2], dtype="Int64"), {"prediction": [[1], [2]]}),
        (pd.Series([1, None], dtype="Int64"), {"prediction": [[1], [np.nan]]}),
        (["a", "b"], {"prediction": [["a"], ["b"]]}),
        ({"a": [1, 2], "b": np.ones((2, 3, 4))}, {"a": [[1], [2]], "b": np.ones((2, 3, 4))}),
        ([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], {"a": [[1], [2]], "b": [["x"], ["y"]]}),
        (np.array([1, 2], dtype=object), {"prediction": [[1], [2]]}),
        ([[1, 2], [3, 4]], {"prediction": [[1, 2], [3, 4]]}),
        (4.5, {"prediction": [4.5]}),
        ({"mean": 1.0, "names": ["x", "y"]}, {"mean": [1.0], "names": [["x"], ["y"]]}),
    ],
)
def test_every_usual_prediction_becomes_named_arrays(predicted: Any, expected: Any) -> None:
    found = named_answers(predicted)
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == np.shape(array)
        assert found[name].dtype == object or found[name].dtype.kind in "biuf"


@pytest.mark.parametrize(
    ("predicted", "reason"),
    [
        ([[1], [1, 2]], "different lengths"),
        ([{"a": 1}, {"b": 1}], "different keys"),
        (["a", None], "NoneType"),
        (pd.Series(["a", None]), "missing text"),
        (pd.Series(pd.to_datetime(["2020-01-01"])), "datetime64"),
        (np.array(["2020-01-01"], "datetime64[D]"), "datetime64"),
        ([object()], "object"),
        (np.array([1j]), "complex"),
        ({}, "empty"),
        ([b"bytes"], "S5"),
    ],
)
def test_what_no_tensor_carries_is_refused_with_the_reason(predicted: Any, reason: str) -> None:
    with pytest.raises(CannotBeCarriedError, match=reason):
        named_answers(predicted)


def promised(array: Any, dtype: str, dimensions: int = 2) -> Any:
    output = Tensor(name="y", dtype=dtype, shape=(-1,) * dimensions)
    return as_promised({"y": np.asarray(array)}, [output])["y"]


def test_the_types_are_those_of_the_example() -> None:
    assert promised([[1], [2]], "float64").dtype == np.float64
    assert promised([[1.0], [2.0]], "int64").dtype == np.int64
    assert promised([[1.5]], "float32").dtype == np.float32
    assert promised([[True]], "int64").tolist() == [[1]]
    for array, dtype in (
        ([[1.5]], "int64"),
        ([[np.nan]], "int64"),
        ([[2**60 + 1]], "float64"),
        ([["a"]], "float64"),
        ([[300]], "uint8"),
    ):
        with pytest.raises(CannotBeCarriedError, match="in the example"):
            promised(array, dtype)
    with pytest.raises(CannotBeCarriedError, match="3 dimensions"):
        promised([[[1.0]]], "float64")
    with pytest.raises(CannotBeCarriedError, match=r"\['y'\]"):
        as_promised({"y": COLUMN}, [])
