from __future__ import annotations

from typing import Any

import pytest

from pipeline.stack.triton_backends.onnxruntime import entry_options, graph_contract
from pipeline.stack.triton_backends.onnxruntime.graph_contract import GraphTensor
from pipeline.tensors import DataType


def tensor(
    name: str,
    shape: tuple[int, ...],
    graph_type: str = "tensor(float)",
    *,
    has_default: bool = False,
) -> GraphTensor:
    return GraphTensor(name=name, graph_type=graph_type, shape=shape, has_default=has_default)


def io(name: str, dims: list[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "data_type": "TYPE_FP32", "dims": dims, **more}


def differences(
    *,
    inputs: list[dict[str, Any]] | None = None,
    outputs: list[dict[str, Any]] | None = None,
    batch: int = 0,
    graph_inputs: tuple[GraphTensor, ...] = (),
    graph_outputs: tuple[GraphTensor, ...] = (),
) -> list[str]:
    config = {"max_batch_size": batch, "input": inputs or [], "output": outputs or []}
    return graph_contract.differences_from_graph(config, graph_inputs, graph_outputs)


def test_every_triton_type_is_known() -> None:
    known = set(graph_contract._TRITON_TYPES.values())
    assert known == {data_type.triton for data_type in DataType}


def test_symbolic_and_unknown_dimensions_are_dynamic() -> None:
    assert graph_contract.shape_from_graph(["batch", None, 3]) == (-1, -1, 3)


@pytest.mark.parametrize(
    ("batch", "config", "shape"),
    [
        (8, io("x", [3]), (-1, 3)),
        (8, io("x", [3]), (-1, -1)),
        (8, io("x", [1], reshape={"shape": []}), (-1,)),
        (8, io("x", ["12"], reshape={"shape": ["3", "4"]}), (-1, 3, 4)),  # type: ignore[list-item]
        (0, io("x", [2, 3]), (2, 3)),
        (0, io("x", [-1, 3]), (-1, 3)),
        (0, io("x", [1]), ()),
    ],
)
def test_inputs_that_agree(batch: int, config: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert not differences(inputs=[config], batch=batch, graph_inputs=(tensor("x", shape),))


@pytest.mark.parametrize(
    ("batch", "config", "shape", "words"),
    [
        (0, io("x", [-1]), (3,), "has shape [-1] in the config and [3] in the graph"),
        (0, io("x", [3, 1]), (3,), "has shape [3,1] in the config and [3] in the graph"),
        (0, io("x", [3]), (), "only dims of 1 stand for a scalar"),
        (8, io("x", [1]), (), "input 'x' has no dimension in the graph"),
        (8, io("x", [3]), (8, 3), "first dimension of input 'x' is fixed at 8"),
    ],
)
def test_inputs_that_differ(
    batch: int, config: dict[str, Any], shape: tuple[int, ...], words: str
) -> None:
    [found] = differences(inputs=[config], batch=batch, graph_inputs=(tensor("x", shape),))
    assert words in found


def test_outputs_are_exact_and_may_be_left_out() -> None:
    graph = (tensor("y", (-1, -1)), tensor("maps", (), "seq(map(int64,tensor(float)))"))

    assert not differences(outputs=[io("y", [-1])], batch=8, graph_outputs=graph)
    [found] = differences(outputs=[io("y", [3])], batch=8, graph_outputs=graph)
    assert found == "output 'y' has shape [-1,3] in the config and [-1,-1] in the graph"


def test_an_output_without_a_shape_may_turn_out_to_have_rows() -> None:
    unstated = (tensor("y", ()),)
    assert not differences(outputs=[io("y", [1])], batch=8, graph_outputs=unstated)


def test_an_input_with_a_default_is_left_out_or_optional() -> None:
    graph = (tensor("x", (1,), has_default=True),)

    assert not differences(graph_inputs=graph)
    assert not differences(inputs=[io("x", [1], optional=True)], graph_inputs=graph)
    [found] = differences(inputs=[io("x", [1])], graph_inputs=graph)
    assert "mark it optional" in found


def test_optional_inputs_do_not_go_with_batches() -> None:
    graph = (tensor("x", (-1, 1), has_default=True),)
    [found] = differences(inputs=[io("x", [1], optional=True)], batch=8, graph_inputs=graph)
    assert found == "input 'x' is optional, which needs max_batch_size 0"


def parameters(**values: str) -> dict[str, Any]:
    return {"parameters": {name: {"string_value": text} for name, text in values.items()}}


def test_options_have_defaults() -> None:
    options = entry_options.options_from_config({"default_model_filename": ""})

    assert options.model_file == "model.onnx"
    assert (options.intra_op_threads, options.inter_op_threads) == (1, 0)
    assert options.requires_manifest
    assert options.uses_memory_arena
    assert not options.is_parallel
    assert options.graph_optimization == "ORT_ENABLE_ALL"


def test_options_are_read_as_the_compiled_backend_reads_them() -> None:
    config = parameters(
        intra_op_thread_count="0",
        inter_op_thread_count="3",
        execution_mode="1",
        enable_mem_arena="false",
        enable_mem_pattern="0",
        require_manifest="0",
    )
    config["default_model_filename"] = "other.onnx"
    config["optimization"] = {"graph": {"level": "-1"}}

    options = entry_options.options_from_config(config)

    assert options == entry_options.EntryOptions(
        model_file="other.onnx",
        intra_op_threads=0,
        inter_op_threads=3,
        is_parallel=True,
        graph_optimization="ORT_ENABLE_BASIC",
        uses_memory_arena=False,
        uses_memory_pattern=False,
        requires_manifest=False,
    )


@pytest.mark.parametrize("text", ["-1", "two", ""])
def test_a_thread_count_is_a_whole_number(text: str) -> None:
    with pytest.raises(ValueError, match="intra_op_thread_count must be a whole number"):
        entry_options.options_from_config(parameters(intra_op_thread_count=text))


def test_a_switch_is_on_or_off() -> None:
    with pytest.raises(ValueError, match="require_manifest must be 0 or 1, found 'maybe'"):
        entry_options.options_from_config(parameters(require_manifest="maybe"))


def test_every_unsupported_feature_is_named() -> None:
    config = {
        "sequence_batching": {},
        "model_transaction_policy": {"decoupled": True},
        "batch_input": [{}],
        "batch_output": [],
        "input": [io("x", [1], allow_ragged_batch=True), io("s", [1], is_shape_tensor=False)],
    }

    found = entry_options.unsupported_features(config, "GPU")

    words = ("KIND_GPU", "decoupled", "sequence_batching", "batch_input", "allow_ragged_batch")
    assert len(found) == len(words)
    assert all(word in problem for word, problem in zip(words, found, strict=True))
    assert not entry_options.unsupported_features({}, "CPU")


@pytest.mark.parametrize("version", ["2.0.0", "2.4.6", "10.0.0rc1"])
def test_a_numpy_that_would_give_wrong_numbers_is_refused(version: str) -> None:
    problem = entry_options.problem_with_numpy(version)
    assert problem is not None
    assert "numpy<2" in problem


def test_numpy_1_is_used() -> None:
    assert entry_options.problem_with_numpy("1.26.4") is None
