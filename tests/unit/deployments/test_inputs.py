"""The same rows give the same tensors in whichever form they come."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.deployments.inputs import request_tensors
from pipeline.deployments.predict import batches
from pipeline.errors import RequestError
from pipeline.tensors import DataType, TensorSpec

ROWS = np.array([[1.5, -2.0, 0.1], [3.0, 4.0, 5.0]])
NAMES = ("a", "b", "c")
FRAME = pd.DataFrame(ROWS, columns=list(NAMES))
MATRIX = (TensorSpec(name="X", data_type=DataType.FP32, shape=(-1, 3)),)
BY_COLUMN = (
    TensorSpec(name="city", data_type=DataType.STRING, shape=(-1, 1)),
    TensorSpec(name="age", data_type=DataType.FP32, shape=(-1, 1)),
)
SEVERAL = (
    TensorSpec(name="ids", data_type=DataType.INT64, shape=(-1, -1)),
    TensorSpec(name="mask", data_type=DataType.INT64, shape=(-1, -1), optional=True),
)


def names() -> tuple[str, ...]:
    return NAMES


def nameless() -> tuple[str, ...]:
    return ()


def nobody_asks() -> tuple[str, ...]:
    raise AssertionError


def read_as_the_command_does(document: Any) -> Any:
    return pd.read_json(StringIO(json.dumps(document)))


@pytest.mark.parametrize(
    "inputs",
    [
        ROWS,
        ROWS.astype(np.float32),
        ROWS.tolist(),
        FRAME,
        FRAME[["c", "a", "b"]].assign(label=1),
        FRAME.astype({"b": "int64"}),
        FRAME.astype({"b": "Int64"}),
        {"X": ROWS},
        {"inputs": {"X": ROWS.tolist()}},
        {"c": ROWS[:, 2], "b": ROWS[:, 1], "a": ROWS[:, 0]},
        read_as_the_command_does({"inputs": {"X": ROWS.tolist()}}),
        read_as_the_command_does({"X": ROWS.tolist()}),
        read_as_the_command_does(FRAME[["b", "c", "a"]].to_dict(orient="records")),
    ],
    ids=lambda inputs: type(inputs).__name__,
)
def test_rows_of_numbers_become_one_matrix(inputs: Any) -> None:
    [(name, sent)] = request_tensors(inputs, MATRIX, names).items()
    assert (name, str(sent.dtype)) == ("X", "float32")
    np.testing.assert_array_equal(sent, ROWS.astype(np.float32))


@pytest.mark.parametrize(
    "inputs",
    [
        pd.DataFrame({"age": [30, 41], "more": [0, 0], "city": ["Oslo", "Rome"]}),
        pd.DataFrame({"city": pd.Categorical(["Oslo", "Rome"]), "age": [30.0, 41.0]}),
        {"city": ["Oslo", "Rome"], "age": np.array([30, 41])},
        {"city": np.array([["Oslo"], ["Rome"]]), "age": np.array([[30.0], [41.0]])},
        {"city": np.array([b"Oslo", b"Rome"]), "age": [30, 41]},
        np.array([["Oslo", 30], ["Rome", 41]], dtype=object),
        read_as_the_command_does([{"age": 30, "city": "Oslo"}, {"age": 41, "city": "Rome"}]),
        read_as_the_command_does({"inputs": {"age": [[30], [41]], "city": [["Oslo"], ["Rome"]]}}),
    ],
    ids=lambda inputs: type(inputs).__name__,
)
def test_columns_of_several_types_are_found_by_name(inputs: Any) -> None:
    sent = request_tensors(inputs, BY_COLUMN, nobody_asks)
    assert sent["city"].tolist() == [["Oslo"], ["Rome"]]
    assert (str(sent["age"].dtype), sent["age"].tolist()) == ("float32", [[30.0], [41.0]])


def test_inputs_that_may_be_left_out_may_be_left_out() -> None:
    ids = [[1, 2, 3]]
    assert request_tensors({"ids": ids}, SEVERAL, nobody_asks).keys() == {"ids"}
    assert request_tensors(np.array(ids), SEVERAL, nobody_asks).keys() == {"ids"}
    both = request_tensors({"ids": ids, "mask": ids}, SEVERAL, nobody_asks)
    assert both["mask"].dtype == np.int64


def test_columns_without_names_are_taken_in_order_only_as_many_as_there_are() -> None:
    sent = request_tensors(FRAME, MATRIX, nameless)["X"]
    np.testing.assert_array_equal(sent, ROWS.astype(np.float32))
    with pytest.raises(RequestError, match=r"X: FP32\[\?,3\]; found shape \[2, 2\]"):
        request_tensors(FRAME[["a", "b"]], MATRIX, nameless)
    with pytest.raises(RequestError, match="logged without names"):
        request_tensors({"a": [1.0]}, MATRIX, nameless)


@pytest.mark.parametrize(
    ("inputs", "specs", "message"),
    [
        (FRAME[["a", "b"]], MATRIX, "missing 'c'"),
        (FRAME.assign(c="text"), MATRIX, "'c' is FP32; found 'text'"),
        (FRAME.assign(c=pd.Timestamp("2026-01-01")), MATRIX, "'c' is FP32; found datetime64"),
        (FRAME.assign(c=2**24 + 1), MATRIX, "'c' is FP32, which cannot hold 16777217"),
        (FRAME.assign(c=1e300), MATRIX, r"'c' is FP32, which cannot hold 1e\+300"),
        (pd.concat([FRAME, FRAME], axis=1), MATRIX, "'a' more than once"),
        (FRAME.head(0), MATRIX, "no rows"),
        (ROWS[0], MATRIX, r"takes X: FP32\[\?,3\]; found shape \[3\]"),
        (ROWS, BY_COLUMN, "does not say which"),
        ({"X": ROWS, "Y": ROWS}, MATRIX, "not known 'Y'"),
        ({"X": [[1.0], [1.0, 2.0]]}, MATRIX, "lists of different lengths"),
        ({"a": [1.0], "b": [1.0, 2.0], "c": [1.0]}, MATRIX, "one value in each row"),
        ({"city": ["Oslo"], "age": [30, 41]}, BY_COLUMN, "the same number of rows"),
        ({"city": ["Oslo", None], "age": [30, 41]}, BY_COLUMN, "found a missing value"),
        ({"city": [1, 2], "age": [30, 41]}, BY_COLUMN, "'city' is STRING; found 1"),
        ({"age": [30]}, BY_COLUMN, "missing 'city'"),
        ({"ids": [[1.5]]}, SEVERAL, "'ids' is INT64, which cannot hold 1.5"),
        ({"ids": [[float("nan")]]}, SEVERAL, "'ids' is INT64, which cannot hold nan"),
        ({"other": [[1]]}, SEVERAL, r"takes ids: INT64\[\?,\?\], mask: .*optional.*found 'other'"),
        ({"ids": [[1]]}, (), "no inputs"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(inputs: Any, specs: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        request_tensors(inputs, specs, names)


@pytest.mark.parametrize("data_type", [d for d in DataType if d not in {DataType.BF16}])
def test_what_a_type_holds_arrives_as_it_was_sent(data_type: DataType) -> None:
    spec = TensorSpec(name="x", data_type=data_type, shape=(-1,))
    values = ["1", ""] if data_type is DataType.STRING else [1, 0]
    for sent in (values, pd.Series(values), np.array(values, dtype=object)):
        made = request_tensors({"x": sent}, [spec], nobody_asks)["x"]
        assert made.dtype == np.dtype(data_type.numpy)
        assert made.tolist() == values


def test_missing_numbers_become_nan_and_never_zero() -> None:
    frame = FRAME.assign(b=pd.array([7, None], dtype="Int64"), c=[None, 5.0])
    sent = request_tensors(frame, MATRIX, names)["X"]
    np.testing.assert_array_equal(sent, np.array([[1.5, 7, np.nan], [3, np.nan, 5]], np.float32))


def test_rows_are_sent_in_batches_that_the_server_takes_and_none_is_lost() -> None:
    tensors = {"x": np.arange(7), "y": np.arange(7) * 10}
    parts = list(batches(tensors, 3))
    assert [part["x"].tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [part["y"].tolist() for part in parts] == [[0, 10, 20], [30, 40, 50], [60]]
    assert list(batches({"x": np.array(1.0)}, 0)) == [{"x": np.array(1.0)}]
