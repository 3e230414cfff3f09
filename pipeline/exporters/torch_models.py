"""Loads what MLflow's ``pytorch`` flavor keeps, and finds out how it is called.

MLflow writes two formats and records neither: an exported program (``data/model.pt2``, since 3.x
the default) or a pickled module (``data/model.pth``).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.logged import (
    GENERATED_ORIGIN,
    HOW_TO_LOG,
    LOGGED_ORIGIN,
    example_or_generated,
    input_example,
    input_schema,
    loaded,
)
from pipeline.samples import Array
from pipeline.tensors import DYNAMIC

_PROGRAM: Final = "model.pt2"
_PROGRAM_ORIGIN: Final = "example inputs kept in the exported program"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TorchModel:
    """A loaded model.

    Attributes:
        module: What predicts: in evaluation mode, on the CPU.
        program: The exported program; None for a pickled module.
        arguments: Names of the tensors that it takes, in order.
    """

    module: Any
    program: Any | None
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """A call of the model.

    Attributes:
        names: What clients call the inputs, in the order of the arguments.
        arrays: One value for each.
        free: For each, the dimensions that the signature leaves free; without a signature the
            first, which is then a hope rather than a promise.
        has_signature: Whether the signature says so.
        origin: Where the values come from.
    """

    names: tuple[str, ...]
    arrays: tuple[Array, ...]
    free: tuple[frozenset[int], ...]
    has_signature: bool
    origin: str


def load_torch_model(source: SourceModel) -> TorchModel:
    """Load either format.

    Raises:
        ModelError: It cannot be loaded.
    """
    return loaded(source, lambda: _load(source))  # type: ignore[no-any-return]


def is_program(source: SourceModel) -> bool:
    """Whether the model is an exported program, and not a pickled module."""
    return any(source.path.rglob(_PROGRAM))


def sample_call(model: TorchModel, source: SourceModel) -> Call:
    """The logged inputs, or others of which the origin says that they are not logged ones.

    Raises:
        ModelError: Nothing says what the inputs are, or they do not fit the model's arguments.
    """
    found, origin = _example(model, source)
    schema = input_schema(source)
    specs = schema.inputs if schema is not None and schema.is_tensor_spec() else []
    named = _by_name(found, [spec.name for spec in specs])
    takes = model.arguments if model.program is not None else model.arguments[: len(named)]
    if len(named) != len(takes):
        raise ModelError(
            f"{source.version} takes {len(takes)} tensors ({', '.join(takes)}), its signature or "
            f"input example has {len(named)}",
            hint=HOW_TO_LOG,
        )
    # Names decide the order where they are the names of arguments; otherwise the order does.
    if set(named) == set(takes):
        named = {name: named[name] for name in takes}
    has_names = all(isinstance(name, str) for name in named)
    free = {
        spec.name if has_names else number: _free(spec.shape) for number, spec in enumerate(specs)
    }
    arrays = tuple(_as_array(value, name, source) for name, value in named.items())
    return Call(
        names=tuple(str(name) for name in named) if has_names else takes,
        arrays=arrays,
        free=tuple(
            free.get(name, frozenset({0} if array.ndim else ()))
            for name, array in zip(named, arrays, strict=True)
        ),
        has_signature=bool(specs),
        origin=origin,
    )


def _load(source: SourceModel) -> TorchModel:
    import mlflow.pytorch
    import torch
    from mlflow.models import Model

    data = Model.load(str(source.path)).flavors["pytorch"]["model_data"]
    exported = source.path / data / _PROGRAM
    if exported.exists():
        program = torch.export.load(exported)
        names = tuple(program.graph_signature.user_inputs)
        return TorchModel(module=program.module(), program=program, arguments=names)
    module = mlflow.pytorch.load_model(str(source.path), map_location="cpu")
    module.eval()
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(module.forward).parameters.values()
    names = tuple(p.name for p in parameters if p.kind in positional)
    return TorchModel(module=module, program=None, arguments=names)


def _example(model: TorchModel, source: SourceModel) -> tuple[Any, str]:
    logged = input_example(source)
    if logged is not None:
        return logged, LOGGED_ORIGIN
    # MLflow does not keep tuples of tensors as an example; the exported program does.
    if model.program is not None and model.program.example_inputs:
        import torch

        leaves = torch.utils._pytree.tree_leaves(model.program.example_inputs)
        return [leaf.detach().numpy() for leaf in leaves], _PROGRAM_ORIGIN
    return example_or_generated(source)[0], GENERATED_ORIGIN


def _by_name(found: Any, names: Sequence[str | None]) -> dict[str | int, Any]:
    """Values by the names of the signature, or by position where it has none."""
    if isinstance(found, Mapping):
        return dict(found)
    values = found if isinstance(found, list) else [found]
    if len(names) == len(values) and all(names):
        return dict(zip((str(name) for name in names), values, strict=True))
    return dict(enumerate(values))


def _free(shape: Sequence[int]) -> frozenset[int]:
    return frozenset(axis for axis, size in enumerate(shape) if size == DYNAMIC)


def _as_array(value: Any, name: str | int, source: SourceModel) -> Array:
    # MLflow itself gives the columns of a DataFrame to PyTorch as one float32 matrix.
    array = value.to_numpy(dtype=np.float32) if hasattr(value, "columns") else value
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        found = getattr(array, "dtype", type(array).__name__)
        raise ModelError(
            f"input {name!r} of {source.version} is {found}; PyTorch models take numbers",
            hint=HOW_TO_LOG,
        )
    return array
