"""Small real models of the flavors of tensors, PyTorch and ONNX, for ``flavors.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import flavor_networks
import mlflow.onnx
import mlflow.pytorch
import numpy as np
import torch
from flavor_models import Kind
from mlflow.models import ModelSignature
from mlflow.types.schema import Schema, TensorSpec
from onnx import TensorProto, helper, numpy_helper

_RNG: Final = np.random.default_rng(21)
ROWS: Final = _RNG.normal(size=(5, 6)).astype(np.float32)
IMAGES: Final = _RNG.normal(size=(3, 1, 12, 12)).astype(np.float32)
TOKENS: Final = _RNG.integers(0, 50, (3, 7))
SEQUENCES: Final = _RNG.normal(size=(2, 5, 4)).astype(np.float32)


def network(
    name: str,
    make: Callable[[], Any],
    example: Any,
    shape: tuple[int, ...],
    form: str,
    refusal: str = "",
    *,
    is_training: bool = False,
) -> Kind:
    """A module with fixed weights."""

    def save(folder: Path) -> None:
        torch.manual_seed(4)
        mlflow.pytorch.save_model(
            make().train(is_training),
            folder,
            signature=ModelSignature(Schema([TensorSpec(example.dtype, shape)])),
            input_example=example,
            serialization_format=form,
            pip_requirements=[],
            # The child process that exports it must find the classes of a pickle.
            code_paths=[flavor_networks.__file__] if form == "pickle" else None,
        )

    words = {"pt2": "exported program", "pickle": "pickled module"}[form]
    return Kind(flavor="pytorch", name=f"{name}, {words}", save=save, refusal=refusal)


def network_kinds() -> Iterator[Kind]:
    """Of PyTorch, in both forms of MLflow."""
    mlp, conv = flavor_networks.perceptron, flavor_networks.ConvNet
    encoder, lstm = flavor_networks.Encoder, flavor_networks.Recurrent
    frame = (-1, 1, 12, 12)
    for form in ("pt2", "pickle"):
        yield network("MLP", mlp, ROWS, (-1, 6), form)
        yield network("conv net", conv, IMAGES, frame, form)
        yield network("transformer encoder", encoder, TOKENS, (-1, -1), form)
    for form, refusal in (("pickle", ""), ("pt2", "frozen at 5")):
        yield network("LSTM", lstm, SEQUENCES, (-1, -1, 4), form, refusal)
    for form, refusal in (("pickle", ""), ("pt2", "frozen at 1")):
        yield network("MLP, one row as example", mlp, ROWS[:1], (-1, 6), form, refusal)
    # MLflow itself puts a pickled module into evaluation mode before it predicts.
    for form, refusal in (("pickle", ""), ("pt2", "answers differently")):
        for name, make, example, shape in (
            ("MLP with dropout", flavor_networks.forgetful, ROWS, (-1, 6)),
            ("conv net", conv, IMAGES, frame),
        ):
            name = f"{name}, logged in training mode"
            yield network(name, make, example, shape, form, refusal, is_training=True)


def value(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
    """An input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def layered(width: int, dtype: type) -> Any:
    """Two layers."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weights = {
        "first": _RNG.normal(size=(6, width)) / 3,
        "second": _RNG.normal(size=(width, 3)) / width**0.5,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "second"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(a.astype(dtype), name) for name, a in weights.items()]
    return graph(nodes, [value("x", ["n", 6], kind)], [value("y", ["n", 3], kind)], tensors)


def graph(nodes: Any, inputs: Any, outputs: Any, tensors: Any = ()) -> Any:
    """As another tool writes it."""
    made = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def graph_kinds() -> Iterator[Kind]:
    """Graphs that somebody exported."""

    def logged(name: str, make: Callable[[], Any], example: Any, refusal: str = "") -> Kind:
        def save(folder: Path) -> None:
            options = {} if example is None else {"input_example": {"x": example}}
            mlflow.onnx.save_model(make(), folder, pip_requirements=[], **options)

        return Kind(flavor="onnx", name=name, save=save, refusal=refusal)

    yield logged("graph", lambda: layered(8, np.float32), ROWS)
    yield logged("graph, no example logged", lambda: layered(8, np.float32), None)
    yield logged("graph with external data", lambda: layered(512, np.float32), ROWS)
    yield logged("FP16 graph", lambda: layered(8, np.float16), ROWS.astype(np.float16))
    yield logged("FP64 graph", lambda: layered(8, np.float64), ROWS.astype(np.float64))
    yield logged(
        "graph with a sequence as output",
        lambda: graph(
            [helper.make_node("SequenceConstruct", ["x"], ["s"])],
            [value("x", ["n", 2])],
            [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["n", 2])],
        ),
        None,
        "is a sequence",
    )
