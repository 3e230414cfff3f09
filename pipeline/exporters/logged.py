"""What was logged beside a model: its signature and its input example.

Shared by the exporters. Guarantees: rows that nobody logged are never passed off as logged ones,
their origin says so; the same signature gives the same rows in every process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import yaml

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.samples import Array

GENERATED_ROWS: Final = 8
OTHER_SIZE: Final = 8
"""Size of a generated free dimension that is not the first."""

LOGGED_ORIGIN: Final = "input example logged with the model"
GENERATED_ORIGIN: Final = "generated from the signature, no input example was logged"
HOW_TO_LOG: Final = (
    "log it again with both: mlflow.<flavor>.log_model(..., "
    "signature=infer_signature(inputs, predictions), input_example=inputs[:8])"
)
_SEED: Final = 20_240_607
_WORDS: Final = ("north", "south", "east", "west")


def input_schema(source: SourceModel) -> Any | None:
    """The ``mlflow.types.Schema`` of the inputs; None if the model has no signature."""
    signature = _logged_model(source).signature
    return None if signature is None else signature.inputs


def optional_columns(source: SourceModel) -> frozenset[str]:
    """Columns of which the signature says that they may be missing."""
    schema = input_schema(source)
    if schema is None or schema.is_tensor_spec():
        return frozenset()
    return frozenset(str(spec.name) for spec in schema.inputs if not spec.required)


def input_example(source: SourceModel) -> Any | None:
    """The input example as MLflow gives it back: DataFrame, array, or dict of arrays.

    Raises:
        ModelError: ``MLmodel`` names an example that cannot be read.
    """
    try:
        return _logged_model(source).load_input_example(str(source.path))
    except Exception as error:
        raise ModelError(
            f"the input example of {source.version} cannot be read: {described(error)}",
            hint=HOW_TO_LOG,
        ) from error


def example_or_generated(source: SourceModel) -> tuple[Any, str]:
    """The input example, or rows made from the signature, and where they come from.

    Raises:
        ModelError: The model was logged with neither, or its signature has no such rows.
    """
    example = input_example(source)
    if example is not None:
        return example, LOGGED_ORIGIN
    schema = input_schema(source)
    if schema is None:
        raise _nothing_logged(source)
    return _generated(source, schema), GENERATED_ORIGIN


def expect_inputs_logged(source: SourceModel) -> None:
    """Return if :func:`example_or_generated` will find something.

    Exporters ask this first: it needs nothing but ``MLmodel``, while to import the libraries that
    load a model takes seconds.

    Raises:
        ModelError: The model was logged with neither signature nor input example.
    """
    if not has_inputs_logged(source):
        raise _nothing_logged(source)


def has_inputs_logged(source: SourceModel) -> bool:
    """Whether the model was logged with a signature or an input example."""
    document = yaml.safe_load((source.path / "MLmodel").read_text(encoding="utf-8"))
    signature = document.get("signature") or {}
    return bool(signature.get("inputs") or document.get("saved_input_example_info"))


def generated_array(dtype: np.dtype[Any], shape: tuple[int, ...], *, salt: str = "") -> Array:
    """Values of a type: standard normal, 0 and 1, words or booleans.

    Whole numbers stay at 0 and 1 because they are often indices, and every table has two rows.

    Args:
        dtype: The element type; text and object give words.
        shape: The whole shape.
        salt: Tensors with different salts get different values.
    """
    generator = np.random.default_rng([_SEED, *salt.encode()])
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu":
        return generator.integers(0, 2, shape).astype(dtype)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.kind in "OUST":
        return generator.choice(np.array(_WORDS, dtype=object), shape)
    raise TypeError(f"no values can be made up for {dtype}")


def described(error: BaseException) -> str:
    """An error of somebody else's library on one line, with its type."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def loaded(source: SourceModel, load: Callable[[], Any]) -> Any:
    """Load the model, turning everything that its author's code can raise into one error.

    Raises:
        ModelError: It cannot be loaded; a missing package is named.
    """
    # Code that was logged with the model must not leave caches in the fetched folder.
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        return load()
    except MemoryError:
        raise
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{source.version} cannot be loaded: it needs the Python module {error.name!r}, which "
            "is not installed here",
            hint="install the packages of the model's requirements.txt beside tritonpipe, or log "
            "its own code with code_paths=[...]",
        ) from error
    except Exception as error:
        raise ModelError(
            f"{source.version} cannot be loaded: {described(error)}",
            hint="check that mlflow.pyfunc.load_model reads it in this environment; log it again "
            "if its files are damaged or were written by other package versions",
        ) from error
    finally:
        sys.dont_write_bytecode = before


def _nothing_logged(source: SourceModel) -> ModelError:
    return ModelError(
        f"{source.version} was logged without signature and input example: nothing says what its "
        "inputs are",
        hint=HOW_TO_LOG,
    )


def _logged_model(source: SourceModel) -> Any:
    from mlflow.models import Model

    return Model.load(str(source.path))


def _generated(source: SourceModel, schema: Any) -> Any:
    try:
        if schema.is_tensor_spec():
            return _generated_tensors(schema)
        return _generated_frame(schema)
    except TypeError as error:
        raise ModelError(
            f"no inputs can be made up from the signature of {source.version}: {error}",
            hint=HOW_TO_LOG,
        ) from error


def _generated_tensors(schema: Any) -> Any:
    arrays = {}
    for number, spec in enumerate(schema.inputs):
        free = (GENERATED_ROWS, *[OTHER_SIZE] * len(spec.shape))
        shape = tuple(free[axis] if size < 0 else size for axis, size in enumerate(spec.shape))
        arrays[spec.name or number] = generated_array(spec.type, shape, salt=str(number))
    return arrays if schema.has_input_names() else next(iter(arrays.values()))


def _generated_frame(schema: Any) -> Any:
    import pandas as pd

    columns = {}
    for number, spec in enumerate(schema.inputs):
        if not hasattr(spec.type, "to_numpy"):
            raise TypeError(f"column {spec.name!r} is of type {spec.type}")
        dtype = np.dtype(spec.type.to_numpy())
        name = number if spec.name is None else spec.name
        columns[name] = generated_array(dtype, (GENERATED_ROWS,), salt=str(number))
    return pd.DataFrame(columns)
