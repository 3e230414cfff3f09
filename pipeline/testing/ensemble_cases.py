"""Ensembles that fit their steps and ensembles that do not, each with what is wrong in words.

The unit tests hold our judgement of them against these words, and the integration tests hold it
against what a real Triton makes of the same configs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

Tensor = tuple[str, str, str]
"""Name, data type and dims."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCase:
    """One step: model, version, and the mappings from its own names to the ensemble's."""

    model: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    version: str = "model_version: -1"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleCase:
    """An ensemble over :data:`STEPS`.

    Attributes:
        problem: Part of the sentence that tells what is wrong; empty if nothing is.
        is_endless: Whether Triton takes it, and then crashes with the first request.
    """

    steps: tuple[StepCase, ...]
    inputs: tuple[Tensor, ...] = (("X", "FP32", "3"),)
    outputs: tuple[Tensor, ...] = (("Z", "FP32", "3"),)
    max_batch_size: int = 8
    more: str = ""
    problem: str = ""
    is_endless: bool = False

    def config(self, name: str, prefix: str = "") -> str:
        """Text of its config; ``prefix`` begins the name of every step."""
        steps = "".join(
            f'step {{ model_name: "{prefix}{s.model}" {s.version} '
            + "".join(f'input_map {{ key: "{k}" value: "{v}" }} ' for k, v in s.inputs.items())
            + "".join(f'output_map {{ key: "{k}" value: "{v}" }} ' for k, v in s.outputs.items())
            + "} "
            for s in self.steps
        )
        return (
            f'name: "{prefix}{name}" platform: "ensemble" max_batch_size: {self.max_batch_size} '
            f"version_policy {{ specific {{ versions: [1] }} }} {self.more} "
            + _tensors("input", self.inputs)
            + _tensors("output", self.outputs)
            + f"ensemble_scheduling {{ {steps} }}"
        )


def step_config(name: str, inputs: str, outputs: str, *, max_batch_size: int = 8) -> str:
    """Text of the config of a Python model with these inputs and outputs."""
    return (
        f'name: "{name}" backend: "python" max_batch_size: {max_batch_size} {inputs} {outputs} '
        "version_policy { specific { versions: [1] } } instance_group { kind: KIND_CPU count: 1 }"
    )


def _tensors(kind: str, tensors: tuple[Tensor, ...], more: str = "") -> str:
    return "".join(
        f'{kind} {{ name: "{name}" data_type: TYPE_{data_type} dims: [ {dims} ] {more} }} '
        for name, data_type, dims in tensors
    )


_IN, _OUT = _tensors("input", (("x", "FP32", "3"),)), _tensors("output", (("y", "FP32", "3"),))


def steps(prefix: str = "") -> dict[str, str]:
    """The configs of the models that the cases use as steps, by name."""
    optional = _tensors("input", (("w", "FP32", "3"),), "optional: true")
    whole = (
        _tensors("input", (("x", "FP32", "-1, 3"),)),
        _tensors("output", (("y", "FP32", "-1, 3"),)),
    )
    doubles = _tensors("input", (("x", "FP64", "3"),))
    made = {
        "a": (_IN, _OUT, 8),
        "b": (_IN + optional, _OUT, 8),
        "whole": (*whole, 0),
        "small": (_IN, _OUT, 2),
        "doubles": (doubles, _OUT, 8),
    }
    return {
        prefix + name: step_config(prefix + name, inputs, outputs, max_batch_size=size)
        for name, (inputs, outputs, size) in made.items()
    }


_A: Final = StepCase(model="a", inputs={"x": "X"}, outputs={"y": "m"})
_B: Final = StepCase(model="b", inputs={"x": "m"}, outputs={"y": "Z"})
_AB: Final = EnsembleCase(steps=(_A, _B))
_Z: Final = _AB.outputs[0]


def _case(*steps: StepCase, problem: str = "") -> EnsembleCase:
    return EnsembleCase(steps=steps, problem=problem)


def _second(model: str = "b", problem: str = "", **inputs: str) -> EnsembleCase:
    """``a`` and then this step, which makes Z."""
    return _case(_A, StepCase(model=model, inputs=inputs, outputs={"y": "Z"}), problem=problem)


CASES: Final[Mapping[str, EnsembleCase]] = {
    "two-steps": _AB,
    "steps-in-any-order": _case(_B, _A),
    "version-that-is-served": _case(replace(_A, version="model_version: 1"), _B),
    "wildcard": replace(_AB, outputs=(("Z", "FP32", "-1"),)),
    "unbatched-step": _second("whole", x="m"),
    "unbatched-ensemble": replace(
        _AB, max_batch_size=0, inputs=(("X", "FP32", "-1, 3"),), outputs=(("Z", "FP32", "-1, 3"),)
    ),
    "equal-dims-of-one-row": replace(_AB, max_batch_size=0),
    "tensor-in-between-is-an-output": replace(_AB, outputs=(_Z, ("m", "FP32", "3"))),
    "input-is-an-output": replace(_AB, outputs=(_Z, ("X", "FP32", "3"))),
    "one-tensor-for-two-inputs": _second(x="m", w="m"),
    "reshaped-input": replace(
        _AB,
        inputs=(),
        more='input { name: "X" data_type: TYPE_FP32 dims: [1, 3] reshape: { shape: [3] } }',
    ),
    "version-that-is-not-served": _case(
        replace(_A, version="model_version: 7"), _B, problem="step 'a' needs version 7; served is 1"
    ),
    "no-version": _case(replace(_A, version=""), _B, problem="write model_version: -1"),
    "unknown-model": _case(replace(_A, model="nobody"), _B, problem="'nobody' is neither"),
    "unknown-input": _second(x="m", q="X", problem="step 'b' has no input 'q'; it has 'w', 'x'"),
    "unknown-output": _case(
        _A, replace(_B, outputs={"q": "Z"}), problem="step 'b' has no output 'q'; it has 'y'"
    ),
    "input-not-mapped": _second(w="m", problem="input 'x' of step 'b' is mapped to no tensor"),
    "other-type": _second(
        "doubles",
        x="m",
        problem="tensor 'm' is FP32[?,3] in output 'y' of 'a', and FP64[?,3] in input 'x'",
    ),
    "other-size": replace(
        _AB,
        outputs=(("Z", "FP32", "4"),),
        problem="tensor 'Z' is FP32[?,4] in the ensemble, and FP32[?,3] in output 'y' of 'b'",
    ),
    "other-rank": replace(_AB, outputs=(("Z", "FP32", "3, 1"),), problem="FP32[?,3,1] in the"),
    "smaller-batches": _second("small", x="m", problem="its step 'small' only of up to 2"),
    "made-twice": _case(
        _A,
        StepCase(model="b", inputs={"x": "X"}, outputs={"y": "m"}),
        StepCase(model="a", inputs={"x": "m"}, outputs={"y": "Z"}),
        problem="tensor 'm' is the output of more than one step",
    ),
    "circle": _case(
        StepCase(model="b", inputs={"x": "X", "w": "n"}, outputs={"y": "m"}),
        StepCase(model="a", inputs={"x": "m"}, outputs={"y": "n"}),
        StepCase(model="a", inputs={"x": "n"}, outputs={"y": "Z"}),
        problem="the steps go in a circle",
    ),
    "input-not-used": replace(
        _AB, inputs=(*_AB.inputs, ("U", "FP32", "3")), problem="input 'U' of the ensemble is used"
    ),
    "output-not-made": replace(
        _AB, outputs=(_Z, ("Q", "FP32", "3")), problem="output 'Q' of the ensemble is made by no"
    ),
    "tensor-not-used": _second(x="X", problem="tensor 'm' is made by a step, and neither used"),
    "tensor-from-nowhere": _second(x="m", w="k", problem="tensor 'k' is read by a step, and made"),
    "of-itself": _case(
        StepCase(model="of-itself", inputs={"X": "X"}, outputs={"Z": "Z"}),
        problem="it is a step of itself: of-itself -> of-itself",
    ),
    "with-instances": replace(
        _AB, more="instance_group { count: 1 }", problem="cannot have instance_group"
    ),
    "no-steps": EnsembleCase(steps=(), problem="it has no step"),
    "nothing-mapped": _case(
        StepCase(model="a", inputs={}, outputs={"y": "Z"}), problem="step 0 has no input_map"
    ),
    "with-a-backend": replace(_AB, more='backend: "python"', problem="and no backend"),
    "input-made-again": EnsembleCase(
        steps=(
            StepCase(model="a", inputs={"x": "X"}, outputs={"y": "Z"}),
            StepCase(model="b", inputs={"x": "Z"}, outputs={"y": "X"}),
        ),
        problem="requests would go round for ever",
        is_endless=True,
    ),
}
