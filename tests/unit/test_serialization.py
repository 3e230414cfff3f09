from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.artifacts import Export, OnnxModel, PromotionRequest
from pipeline.serialization import from_json, to_json
from pipeline.tensors import DataType, TensorSpec

ONNX = OnnxModel(
    path=Path("/models/m"),
    opset=20,
    inputs=(TensorSpec(name="City name", data_type=DataType.STRING, shape=(-1, 1)),),
    outputs=(TensorSpec(name="y", data_type=DataType.FP32, shape=(-1,), optional=True),),
    digest="sha256:1",
    source_digest="sha256:2",
    flavor="sklearn",
    tools={"onnx": "1.23.2"},
)


@pytest.mark.parametrize(
    "value",
    [
        ONNX,
        Export(onnx=ONNX, samples=Path("s.npz"), samples_origin="input example"),
        PromotionRequest(model="m", alias="champion"),
        PromotionRequest(model="m", version=3),
    ],
)
def test_round_trip_through_json_text_is_the_identity(value: object) -> None:
    assert from_json(type(value), json.loads(json.dumps(to_json(value)))) == value


def test_unknown_keys_of_a_newer_writer_are_ignored() -> None:
    document = to_json(PromotionRequest(model="m", version=3)) | {"colour": "blue"}
    assert from_json(PromotionRequest, document) == PromotionRequest(model="m", version=3)


@pytest.mark.parametrize(
    ("kind", "data"),
    [(int, "3"), (str, 3), (tuple[int, ...], {"a": 1}), (TensorSpec, []), (float, 10**400)],
)
def test_wrong_form_is_refused(kind: object, data: object) -> None:
    with pytest.raises(TypeError):
        from_json(kind, data)


def test_unsupported_annotation_is_refused() -> None:
    @dataclass(frozen=True)
    class Strange:
        values: set[int]

    with pytest.raises(TypeError, match="cannot be read from JSON"):
        from_json(set[int], [1])
    with pytest.raises(TypeError, match="no JSON form"):
        to_json(Strange(values={1}))
