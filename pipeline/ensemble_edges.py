"""Whether an ensemble and its steps fit together, told before Triton is.

Triton checks an ensemble when it loads it, says so in its log only, and unloads one that is served
as soon as a step no longer fits. Guarantees: what Triton refuses, or takes and then never answers,
is a problem here; what it serves is none; the order in which steps are written does not matter.

Sources: ``ValidateEnsembleSchedulingConfig`` and ``ValidateEnsembleConfig`` of Triton's core; each
rule was tried on Triton 2.51.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final

from tritonclient.grpc import model_config_pb2 as pb

from pipeline.ensembles import NEWEST
from pipeline.model_config import config_from_text, served_versions
from pipeline.tensors import DYNAMIC

ENSEMBLE: Final = "ensemble"
"""The platform of ensembles; they have no backend."""

_NOT_FOR_ENSEMBLES: Final = ("instance_group", "optimization", "model_warmup")


def edge_problems(ensemble: str, configs: Mapping[str, str]) -> list[str]:
    """What keeps an ensemble from being served; empty if nothing does, and for other models.

    Args:
        ensemble: Text of its config.
        configs: Texts of the configs of all models that could be its steps, by name.

    Returns:
        Sentences that name the tensor or step, what is expected and what was found.

    Raises:
        ValueError: A text is no ``config.pbtxt``.
    """
    config = config_from_text(ensemble)
    if not is_ensemble(config):
        return []
    problems = list(_problems_of_config(config))
    steps = list(config.ensemble_scheduling.step)
    if problems or not steps:
        return problems or ["it has no step: write ensemble_scheduling { step { … } }"]
    problems += _problems_of_flow(config, steps)
    models: dict[str, Any] = {}
    for step in steps:
        if step.model_name in configs:
            models[step.model_name] = config_from_text(configs[step.model_name])
            problems += _problems_of_step(config, step, models[step.model_name], configs)
        elif step.model_name != config.name:
            problems.append(f"its step {step.model_name!r} is neither published nor among these")
    circle = _circle(config.name, dict(configs) | {config.name: ensemble})
    if circle:
        problems.append(f"it is a step of itself: {' -> '.join(circle)}")
    return list(dict.fromkeys([*problems, *_problems_of_tensors(config, models)]))


def broken_ensembles(model: str, config: str, published: Mapping[str, str]) -> dict[str, list[str]]:
    """Which ensembles Triton would unload when a model gets this config, and why.

    Args:
        model: The model that is about to be committed.
        config: Text of its new config.
        published: Texts of all published configs, by name.

    Returns:
        What is wrong with each ensemble then that is not wrong with it now.

    Raises:
        ValueError: A text is no ``config.pbtxt``.
    """
    after = dict(published) | {model: config}
    broken = {}
    for name, ensemble in published.items():
        steps = config_from_text(ensemble).ensemble_scheduling.step
        if name == model or model not in {step.model_name for step in steps}:
            continue
        now = edge_problems(ensemble, published)
        new = [problem for problem in edge_problems(ensemble, after) if problem not in now]
        if new:
            broken[name] = new
    return broken


def is_ensemble(config: Any) -> bool:
    """Whether a parsed config is one of an ensemble, or is meant to be."""
    return bool(config.platform == ENSEMBLE or config.HasField("ensemble_scheduling"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """One end of an edge: a tensor as the ensemble or one of its steps declares it."""

    where: str
    data_type: int
    dims: tuple[int, ...]
    is_batching: bool

    @property
    def full_shape(self) -> tuple[int, ...]:
        return (DYNAMIC, *self.dims) if self.is_batching else self.dims

    def fits(self, other: _End) -> bool:
        """Triton also takes equal dims of a model that batches and of one that does not."""
        return _agree(self.dims, other.dims) or _agree(self.full_shape, other.full_shape)

    def __str__(self) -> str:
        name = pb.DataType.Name(self.data_type).removeprefix("TYPE_")
        shape = ",".join("?" if size == DYNAMIC else str(size) for size in self.full_shape)
        return f"{name}[{shape}] in {self.where}"


def _agree(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(one) == len(other) and all(
        a == b or DYNAMIC in {a, b} for a, b in zip(one, other, strict=True)
    )


def _problems_of_config(config: Any) -> Iterator[str]:
    if config.platform != ENSEMBLE or config.backend:
        yield (
            f'an ensemble has platform: "ensemble" and no backend; this one has platform '
            f"{config.platform!r} and backend {config.backend!r}"
        )
    for name in _NOT_FOR_ENSEMBLES:
        value = getattr(config, name)
        if value.ByteSize() if name == "optimization" else len(value):
            yield f"an ensemble cannot have {name}: it belongs to the steps"
    for number, step in enumerate(config.ensemble_scheduling.step):
        missing = [n for n in ("model_name", "input_map", "output_map") if not getattr(step, n)]
        if missing:
            yield f"step {number} has no {' and no '.join(missing)}"


def _problems_of_flow(config: Any, steps: list[Any]) -> Iterator[str]:
    """Whether every tensor is made once, from what is there, and used."""
    inputs, outputs = {i.name for i in config.input}, {o.name for o in config.output}
    read = {tensor for step in steps for tensor in step.input_map.values()}
    made = [tensor for step in steps for tensor in step.output_map.values()]
    for tensor in sorted({t for t in made if made.count(t) > 1}):
        yield f"tensor {tensor!r} is the output of more than one step"
    for tensor in sorted(inputs & set(made)):
        yield (
            f"tensor {tensor!r} is an input of the ensemble and the output of a step: requests "
            "would go round for ever"
        )
    for tensor in sorted(inputs - read):
        yield f"input {tensor!r} of the ensemble is used by no step"
    for tensor in sorted(outputs - set(made) - (inputs & read)):
        yield f"output {tensor!r} of the ensemble is made by no step"
    for tensor in sorted(set(made) - read - outputs):
        yield f"tensor {tensor!r} is made by a step, and neither used nor an output"
    ready = _reachable(inputs, steps)
    for tensor in sorted(read - set(made) - inputs):
        yield f"tensor {tensor!r} is read by a step, and made by none"
    for tensor in sorted((set(made) & read) - ready):
        if not any(t in read - set(made) - inputs for t in _needed(tensor, steps)):
            yield f"tensor {tensor!r} needs itself to be made: the steps go in a circle"


def _reachable(inputs: set[str], steps: list[Any]) -> set[str]:
    ready, pending = set(inputs), list(steps)
    while True:
        able = [step for step in pending if set(step.input_map.values()) <= ready]
        if not able:
            return ready
        pending = [step for step in pending if step not in able]
        ready |= {tensor for step in able for tensor in step.output_map.values()}


def _needed(tensor: str, steps: list[Any]) -> set[str]:
    """Everything that must be there before a tensor can be made."""
    needed: set[str] = set()
    pending = {tensor}
    while pending:
        makers = [step for step in steps if pending & set(step.output_map.values())]
        pending = {t for step in makers for t in step.input_map.values()} - needed
        needed |= pending
    return needed


def _problems_of_step(
    config: Any, step: Any, model: Any, configs: Mapping[str, str]
) -> Iterator[str]:
    name = step.model_name
    inputs, outputs = {i.name for i in model.input}, {o.name for o in model.output}
    for key in sorted(step.input_map.keys() - inputs):
        yield f"step {name!r} has no input {key!r}; it has {_listed(inputs)}"
    for key in sorted(step.output_map.keys() - outputs):
        yield f"step {name!r} has no output {key!r}; it has {_listed(outputs)}"
    for tensor in model.input:
        if tensor.name not in step.input_map and not tensor.optional:
            yield f"input {tensor.name!r} of step {name!r} is mapped to no tensor"
    if 0 < model.max_batch_size < config.max_batch_size:
        yield (
            f"it takes batches of up to {config.max_batch_size}, its step {name!r} only of up to "
            f"{model.max_batch_size}"
        )
    if model.model_transaction_policy.decoupled:
        yield f"step {name!r} is decoupled: it may give any number of answers to one request"
    yield from _problems_of_version(step, served_versions(configs[name]))


def _problems_of_version(step: Any, served: tuple[int, ...]) -> Iterator[str]:
    version = int(step.model_version)
    if version == 0:
        yield (
            f"step {step.model_name!r} names no version, which Triton reads as version 0: write "
            f"model_version: {NEWEST} for the newest one"
        )
    elif version != NEWEST and served and version not in served:
        yield (
            f"step {step.model_name!r} needs version {version}; served is "
            + ", ".join(map(str, served))
        )


@dataclass(slots=True)
class _Tensor:
    """Where a tensor of the ensemble is declared: by itself, by who makes it, by who reads it."""

    declared: list[_End] = field(default_factory=list)
    made: list[_End] = field(default_factory=list)
    read: list[_End] = field(default_factory=list)


def _problems_of_tensors(config: Any, models: Mapping[str, Any]) -> Iterator[str]:
    """Whether both ends of every edge have the same type and shapes that can be equal."""
    tensors: dict[str, _Tensor] = {}
    for tensor in (*config.input, *config.output):
        end = _end("the ensemble", config, tensor, reshaped=True)
        tensors.setdefault(tensor.name, _Tensor()).declared.append(end)
    for step in config.ensemble_scheduling.step:
        model = models.get(step.model_name)
        if model is None:
            continue
        for tensor in model.output:
            if tensor.name in step.output_map:
                end = _end(f"output {tensor.name!r} of {step.model_name!r}", model, tensor)
                tensors.setdefault(step.output_map[tensor.name], _Tensor()).made.append(end)
        for tensor in model.input:
            if tensor.name in step.input_map:
                end = _end(f"input {tensor.name!r} of {step.model_name!r}", model, tensor)
                tensors.setdefault(step.input_map[tensor.name], _Tensor()).read.append(end)
    for name, found in tensors.items():
        ends = [*found.declared, *found.made, *found.read]
        for one, other in combinations(ends, 2):
            if one.data_type != other.data_type or not one.fits(other):
                yield f"tensor {name!r} is {one}, and {other}"


def _end(where: str, model: Any, tensor: Any, *, reshaped: bool = False) -> _End:
    dims = tensor.reshape.shape if reshaped and tensor.HasField("reshape") else tensor.dims
    return _End(
        where=where,
        data_type=tensor.data_type,
        dims=tuple(int(size) for size in dims),
        is_batching=model.max_batch_size > 0,
    )


def _circle(start: str, configs: Mapping[str, str]) -> list[str]:
    """The way from an ensemble over its steps back to itself; empty if there is none."""
    pending, seen = [[start]], set()
    while pending:
        way = pending.pop()
        text = configs.get(way[-1])
        steps = config_from_text(text).ensemble_scheduling.step if text else ()
        for name in {step.model_name for step in steps}:
            if name == start:
                return [*way, name]
            if name not in seen:
                seen.add(name)
                pending.append([*way, name])
    return []


def _listed(names: set[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names)) or "none"
