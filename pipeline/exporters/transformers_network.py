"""The network of a pipeline as a graph: from tokens to labels, words and scores.

``torch.onnx`` gives numbers; the words behind them are tables that the graph looks up itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.logged import described
from pipeline.exporters.torch_programs import save_program
from pipeline.exporters.transformers_task import Task
from pipeline.onnx_graph import load_graph, rename_tensors, strip_notes
from pipeline.samples import Array

_BATCH, _TOKENS = "batch", "tokens"


def save_network(
    task: Task, tokens: Sequence[Mapping[str, Array]], file: Path, source: SourceModel
) -> None:
    """Write the graph.

    Args:
        task: Whose network.
        tokens: Of one or more texts, to trace it with.
        file: Where to.
        source: For messages.

    Raises:
        ModelError: torch cannot export it with free axes of batch and tokens.
    """
    import onnx

    save_program(_converted(task, tokens, source), file)
    graph = load_graph(file)
    strip_notes(graph)
    rename_tensors(graph, task.fed, task.outputs)
    for output, words in task.tables.items():
        _look_up(graph.graph, output, words)
    _name_axes(graph.graph)
    # What is declared of inner tensors is needed by nobody.
    graph.graph.ClearField("value_info")
    onnx.save(graph, str(file))


def _converted(task: Task, tokens: Sequence[Mapping[str, Array]], source: SourceModel) -> Any:
    import torch

    class Network(torch.nn.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.model = task.model

        def forward(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
            named = dict(zip(task.fed, values, strict=True))
            output = self.model(**{name: named[name] for name in task.taken})
            return task.decode(output[0], named)

    width = max(2, *(one["input_ids"].shape[1] for one in tokens))
    traced = tuple(_traced(task, name, tokens, width) for name in task.fed)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        return torch.onnx.export(
            Network().eval(),
            (tuple(torch.from_numpy(array) for array in traced),),
            dynamo=True,
            verbose=False,
            dynamic_shapes=((free,) * len(traced),),
        )
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"torch.onnx cannot convert the network of {source.version}, a "
            f"{type(task.model).__name__}, with free axes of batch and tokens: "
            f"{described(error.__cause__ or error)}",
            hint="a later version of transformers may be able to; or export it to ONNX yourself "
            "and log it with mlflow.onnx",
        ) from error


def _traced(task: Task, name: str, tokens: Sequence[Mapping[str, Array]], width: int) -> Array:
    """Two rows, of different lengths where there are some: torch takes a size of 1 for constant."""
    rows = np.full((2, width), task.padding(task.sources[name]), np.int64)
    for number in range(2):
        values = tokens[number % len(tokens)][name][0]
        rows[number, : len(values)] = values
    return rows


def _look_up(graph: Any, output: str, words: Sequence[str]) -> None:
    """Let the graph give the words instead of their numbers."""
    from onnx import TensorProto, helper

    numbers, table = f"{output}_number", f"{output}_words"
    for node in graph.node:
        node.input[:] = [numbers if name == output else name for name in node.input]
        node.output[:] = [numbers if name == output else name for name in node.output]
    graph.initializer.append(
        TensorProto(
            name=table,
            data_type=TensorProto.STRING,
            dims=[len(words)],
            string_data=[word.encode() for word in words],
        )
    )
    graph.node.append(helper.make_node("Gather", [table, numbers], [output]))
    value = next(value for value in graph.output if value.name == output)
    value.type.tensor_type.elem_type = TensorProto.STRING


def _name_axes(graph: Any) -> None:
    """Free axes get the names of what they count, instead of those of symbols."""
    for value in (*graph.input, *graph.output):
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.HasField("dim_value"):
                size.dim_param = _BATCH if axis == 0 else _TOKENS
