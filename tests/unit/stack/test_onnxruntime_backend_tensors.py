from __future__ import annotations

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from pipeline import request_groups
from pipeline.stack.triton_backends.onnxruntime import bfloat16_tensors, text_tensors


def rows(*shape: int, start: int = 0) -> request_groups.Array:
    return np.arange(start, start + int(np.prod(shape)), dtype=np.float32).reshape(shape)


def test_only_requests_of_the_same_inputs_and_row_shapes_share_a_run() -> None:
    feeds = {
        0: {"x": rows(1, 3), "y": rows(1, 2)},
        2: {"x": rows(4, 3)},
        3: {"y": rows(2, 2), "x": rows(2, 3)},
        4: {"x": rows(1, 3), "y": rows(1, 1)},
    }
    assert request_groups.groups_of(feeds) == [[0, 3], [2], [4]]


def test_nothing_to_run_has_no_groups() -> None:
    assert request_groups.groups_of({}) == []


@pytest.mark.parametrize("counts", [(1,), (1, 2), (3, 1, 2)])
def test_what_is_stacked_is_split_again(counts: tuple[int, ...]) -> None:
    feeds = [{"x": rows(count, 2, start=10 * i)} for i, count in enumerate(counts)]

    together = request_groups.stacked(feeds)
    parts = request_groups.distributed(together, [request_groups.rows_of(f) for f in feeds])

    assert len(parts) == len(feeds)
    for part, feed in zip(parts, feeds, strict=True):
        np.testing.assert_array_equal(part["x"], feed["x"])
        assert part["x"].flags.c_contiguous


def test_one_request_is_not_copied() -> None:
    feed = {"x": rows(2, 2)}
    assert request_groups.stacked([feed]) is feed
    assert request_groups.distributed(feed, [2])[0]["x"] is feed["x"]


@pytest.mark.parametrize("shape", [(), (1, 2), (4, 2)])
@pytest.mark.parametrize("counts", [[3], [1, 2]])
def test_an_output_with_other_rows_is_refused(shape: tuple[int, ...], counts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"output 'y' has shape .* for a batch of 3"):
        request_groups.distributed({"y": rows(*shape)}, counts)


@pytest.mark.parametrize("shape", [(2, 2), (4,), (1, 4, 1)])
def test_text_keeps_its_shape(shape: tuple[int, ...]) -> None:
    words = ["é", "", "a\0b", "日本"]
    encoded = np.array([word.encode() for word in words], object).reshape(shape)

    decoded = text_tensors.text_from_bytes("x", encoded)

    assert decoded.shape == shape
    assert decoded.ravel().tolist() == words


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0)])
def test_no_text_keeps_its_shape(shape: tuple[int, ...]) -> None:
    decoded = text_tensors.text_from_bytes("x", np.empty(shape, object))
    assert decoded.shape == shape
    assert decoded.dtype == object


def test_bytes_that_are_not_text_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"input 'city' is not UTF-8 text: .*0xff"):
        text_tensors.text_from_bytes("city", np.array([b"ok", b"\xff"], object))


@pytest.mark.parametrize("values", [[[1.0, -2.5, np.inf]], [[]]])
def test_bfloat16_bits_survive_a_run(values: list[list[float]]) -> None:
    shape = ["N", None]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["f"], ["y"], to=TensorProto.BFLOAT16),
        ],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.BFLOAT16, shape)],
        [
            helper.make_tensor_value_info("y", TensorProto.BFLOAT16, shape),
            helper.make_tensor_value_info("f", TensorProto.FLOAT, shape),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array(values, ml_dtypes.bfloat16)

    y, f = bfloat16_tensors.run(session, ["y", "f"], {"x": x.view(np.uint16)})

    np.testing.assert_array_equal(y, x.view(np.uint16))
    np.testing.assert_array_equal(f, x.astype(np.float32))
    np.testing.assert_array_equal(bfloat16_tensors.bits_from_tensor(ort_value(y)), y)


def ort_value(bits: request_groups.Array) -> object:
    return bfloat16_tensors.value_from_bits(bits)


def test_bfloat16_beside_text_inputs_is_named() -> None:
    bfloat16, text = bfloat16_tensors.GRAPH_TYPE, "tensor(string)"

    [problem] = bfloat16_tensors.problems({"x": bfloat16, "s": text}, {"y": bfloat16})

    assert problem == "ONNX Runtime cannot run BF16 tensors ('x', 'y') beside text inputs ('s')"
    assert not bfloat16_tensors.problems({"s": text}, {"t": text})
    assert not bfloat16_tensors.problems({"x": bfloat16}, {"t": text})
