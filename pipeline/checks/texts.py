"""Runs a step and the network behind it as the server does, from texts.

Guarantees: the code of the step is the one that is served; answers are as wide as the samples that
they are compared with, or wider, so that a row alone and a row among longer ones are comparable.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.artifacts import OnnxModel, Preprocessing
from pipeline.checks.runs import Inputs, Session
from pipeline.onnx_graph import OnnxSession
from pipeline.samples import Array
from pipeline.text_steps import TEXT, TextStep
from pipeline.token_axes import token_axes

_MOST_TOKENS: Final = 4096
"""Of one run: long texts are compared in smaller batches than the server would form."""


class TextModel:
    """A step and its network, loaded."""

    def __init__(self, preprocessing: Preprocessing, onnx: OnnxModel) -> None:
        """Load both; raises whatever they raise."""
        self._step = TextStep(preprocessing.path)
        self._network = OnnxSession(onnx.file, is_optimised=True)
        self._taken = [spec.name for spec in onnx.inputs]
        self._axes = token_axes(preprocessing, onnx)

    def session(self, inputs: Inputs) -> Session:
        """What answers these inputs."""
        return _Asked(self, self.width(inputs))

    def width(self, inputs: Inputs) -> int:
        """The tokens of the longest text of some inputs."""
        return self._axes.width(inputs.samples.outputs)

    def largest_batch(self, inputs: Inputs, largest: int) -> int:
        """At most so many rows at once."""
        return max(2, min(largest, _MOST_TOKENS // max(self.width(inputs), 1)))

    def answers(self, inputs: Mapping[str, Array], width: int) -> dict[str, Array]:
        """All outputs of both for some texts."""
        tokens = self._step.run(inputs[TEXT])
        answers = self._network.run({name: tokens[name] for name in self._taken})
        return self._axes.widened({**tokens, **answers}, width)


class _Asked:
    def __init__(self, model: TextModel, width: int) -> None:
        self._model = model
        self._width = width

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._model.answers(inputs, self._width)
