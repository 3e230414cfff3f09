from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from tritonclient.grpc import model_config_pb2

from pipeline.tensors import DYNAMIC, DataType, TensorSpec


@pytest.mark.parametrize("data_type", DataType)
def test_names_are_those_of_triton_and_onnx(data_type: DataType) -> None:
    assert model_config_pb2.DataType.Value(data_type.triton)
    assert DataType.from_onnx(data_type.onnx) is data_type
    numpy_type = onnx.helper.tensor_dtype_to_np_dtype(data_type.onnx)
    expected = np.dtype(ml_dtypes.bfloat16) if data_type is DataType.BF16 else numpy_type
    assert np.dtype(expected).name == data_type.numpy


def test_every_type_of_triton_is_here() -> None:
    known = {data_type.triton for data_type in DataType} | {"TYPE_INVALID"}
    assert set(model_config_pb2.DataType.keys()) == known


def test_types_that_triton_cannot_carry_are_none() -> None:
    assert DataType.from_onnx(onnx.TensorProto.COMPLEX64) is None
    assert DataType.from_onnx(onnx.TensorProto.FLOAT8E4M3FN) is None
    assert DataType.from_numpy("complex64") is None


def test_a_spec_reads_as_people_write_it() -> None:
    spec = TensorSpec(name="x", data_type=DataType.FP32, shape=(DYNAMIC, 3))
    assert str(spec) == "x: FP32[?,3]"
    assert spec.has_dynamic_batch
