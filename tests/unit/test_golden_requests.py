from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from pipeline.golden_requests import golden_samples, golden_template
from pipeline.samples import Samples
from pipeline.tensors import DataType, TensorSpec


def spec(
    data_type: DataType = DataType.FP32,
    shape: tuple[int, ...] = (2,),
    *,
    name: str = "x",
    optional: bool = False,
) -> TensorSpec:
    return TensorSpec(name=name, data_type=data_type, shape=shape, optional=optional)


def tensor(datatype: str, shape: Any, data: Any, name: str = "x") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def read(
    item: dict[str, Any], expected: TensorSpec, *, rows: int = 0, outputs: Any = None
) -> Samples:
    document = {"inputs": [item], "outputs": [item] if outputs is None else outputs}
    return golden_samples(
        json.dumps(document), inputs=[expected], outputs=[expected], max_batch_size=rows
    )


VALUES = {
    DataType.BOOL: [True, False],
    DataType.STRING: ["", "grüße"],
    **{t: [0, int(np.iinfo(t.numpy).max)] for t in DataType if "INT" in t.value},
    DataType.FP16: [0.5, -65504],
    DataType.FP32: [0.25, float("inf")],
    DataType.FP64: [1e300, -1],
}


@pytest.mark.parametrize("data_type", VALUES)
def test_a_value_is_in_the_tensor_as_it_was_written(data_type: DataType) -> None:
    name = "BYTES" if data_type is DataType.STRING else data_type.value
    array = read(tensor(name, [2], VALUES[data_type]), spec(data_type)).inputs["x"]
    assert array.dtype == np.dtype(data_type.numpy)
    assert array.tolist() == VALUES[data_type]


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]]])
def test_data_may_be_flat_or_nested(data: Any) -> None:
    samples = read(tensor("FP32", [2, 2], data), spec(shape=(-1, 2)), rows=2)
    assert samples.inputs["x"].tolist() == [[1, 2], [3, 4]]


def test_what_an_answer_says_besides_is_ignored() -> None:
    document = {
        "id": "7",
        "inputs": [tensor("FP32", [2], [1, 2])],
        "model_version": "1",
        "outputs": [tensor("FP32", [2], [1, 2]) | {"parameters": {}}],
    }
    golden_samples(json.dumps(document), inputs=[spec()], outputs=[spec()], max_batch_size=0)


@pytest.mark.parametrize(
    ("item", "expected", "problem"),
    [
        (tensor("FP64", [2], [1, 2]), spec(), "is FP32 in the config, found 'FP64'"),
        (tensor("FP32", [3], [1, 2, 3]), spec(), r"shape \[2\] in the config, found \[3\]"),
        (tensor("FP32", [2, 1], [1, 2]), spec(), r"shape \[2\] in the config, found \[2, 1\]"),
        (tensor("FP32", [2], [1]), spec(), "needs 2 values in data, found 1"),
        (tensor("FP32", [-1], [1]), spec(shape=(-1,)), "shape of positive numbers"),
        (tensor("FP32", 2, [1]), spec(), "shape of positive numbers"),
        (tensor("FP32", [2], [1, "2"]), spec(), "found the value '2'"),
        (tensor("FP32", [2], [1, True]), spec(), "found the value True"),
        (tensor("FP16", [2], [1, 70000]), spec(DataType.FP16), "found the value 70000"),
        (tensor("INT8", [2], [1, 128]), spec(DataType.INT8), "found the value 128"),
        (tensor("INT8", [2], [1, 0.5]), spec(DataType.INT8), "found the value 0.5"),
        (tensor("UINT8", [2], [1, -1]), spec(DataType.UINT8), "found the value -1"),
        (tensor("BOOL", [2], [1, 0]), spec(DataType.BOOL), "found the value 1"),
        (tensor("BYTES", [2], ["a", 1]), spec(DataType.STRING), "found the value 1"),
        (tensor("BF16", [2], [1, 1]), spec(DataType.BF16), "JSON cannot carry"),
        (tensor("FP32", [2], [1, 1], name="q"), spec(), "model are 'x', each at most once"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    item: dict[str, Any], expected: TensorSpec, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        read(item, expected)


def test_rows_are_counted() -> None:
    rows = spec(shape=(-1, 1))
    three = tensor("FP32", [3, 1], [1, 2, 3])
    with pytest.raises(ValueError, match="max_batch_size is 2, found 3 rows"):
        read(three, rows, rows=2)
    with pytest.raises(ValueError, match="the same number of rows"):
        read(three, rows, rows=4, outputs=[tensor("FP32", [1, 1], [1])])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"inputs": [], "outputs": []}', '{"inputs": 1}'])
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"it is not JSON|no list of inputs"):
        golden_samples(text, inputs=[spec()], outputs=[spec()], max_batch_size=0)


def test_inputs_may_be_left_out_if_they_are_optional_and_outputs_may_not() -> None:
    x = tensor("FP32", [2], [1, 2])
    optional = spec(name="y", optional=True)
    text = json.dumps({"inputs": [x], "outputs": [x]})
    found = golden_samples(text, inputs=[spec(), optional], outputs=[spec()], max_batch_size=0)
    assert found.inputs.keys() == {"x"}
    with pytest.raises(ValueError, match="'y' is missing from its outputs"):
        golden_samples(text, inputs=[spec()], outputs=[spec(), spec(name="y")], max_batch_size=0)


def test_the_template_needs_only_its_data() -> None:
    specs = [spec(shape=(-1, 3)), spec(name="z", optional=True)]
    document = json.loads(golden_template(specs, [spec(DataType.STRING, (1,), name="y")]))
    for items, values in ((document["inputs"], [1, 2, 3]), (document["outputs"], ["a"])):
        items[0]["data"] = values
    y = spec(DataType.STRING, (1,), name="y")
    samples = golden_samples(json.dumps(document), inputs=specs, outputs=[y], max_batch_size=4)
    assert samples.inputs["x"].shape == (1, 3)
