"""Loads what MLflow's ``keras`` and ``tensorflow`` flavors keep, and finds out how it is called.

There are four forms: ``.keras`` files, HDF5 files, Keras models exported as SavedModel, and modules
of TensorFlow saved as SavedModel. All of them become one function of tensors with names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.logged import HOW_TO_LOG, input_schema, loaded

_SIGNATURE: Final = "serving_default"
_AUTOMATIC: Final = re.compile(r"(input|input_layer|keras_tensor|inputs)(_\d+)?")
"""Names that Keras gives itself; they count on with every model that a session builds."""

_UNKNOWN: Final = re.compile(r"(?:Could not locate \w+|Unknown layer:?) '([\w>.]+)'")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorflowModel:
    """A loaded model.

    Attributes:
        names: What clients call the inputs.
        specs: A ``tf.TensorSpec`` of each.
        predict: Takes the tensors in this order, and gives tensors by the name of the output.
    """

    names: tuple[str, ...]
    specs: tuple[Any, ...]
    predict: Callable[..., dict[str, Any]]


def load_tensorflow_model(source: SourceModel, flavor: str) -> TensorflowModel:
    """Load any of the four forms.

    Raises:
        ModelError: It cannot be loaded, or does not say what it takes.
    """
    try:
        model = loaded(source, lambda: _load(source, flavor))
    except ModelError as error:
        raise _explained(error, source) from error
    if hasattr(model, "signatures") and not hasattr(model, "layers"):
        return _of_saved_model(model, source)
    return _of_keras_model(model, source)


def _load(source: SourceModel, flavor: str) -> Any:
    from mlflow.models import Model

    options = Model.load(str(source.path)).flavors[flavor]
    if flavor == "keras":
        import mlflow.keras

        # What the author compiled it with is needed for training only.
        safely = {} if options.get("save_exported_model") else {"compile": False, "safe_mode": True}
        return mlflow.keras.load_model(str(source.path), load_model_kwargs=safely)
    import mlflow.tensorflow

    return mlflow.tensorflow.load_model(
        str(source.path), keras_model_kwargs={"compile": False, "safe_mode": True}
    )


def _explained(error: ModelError, source: SourceModel) -> ModelError:
    """With the way out for what Keras does not read without code of the author."""
    text = str(error.__cause__)
    unknown = _UNKNOWN.search(text)
    if unknown:
        return ModelError(
            f"{source.version} cannot be loaded: it has {unknown[1]}, whose code was not logged",
            hint="log layers of your own with mlflow.tensorflow.log_model(..., custom_objects="
            f"{{'{unknown[1]}': {unknown[1]}}}), or as SavedModel: mlflow.keras.log_model(..., "
            "save_exported_model=True)",
        )
    if "Lambda" in text:
        return ModelError(
            f"{source.version} has a Lambda layer, which is Python code inside of the file",
            hint="use layers and keras.ops instead, which are converted; then log the model again",
        )
    return error


def _of_keras_model(model: Any, source: SourceModel) -> TensorflowModel:
    import keras
    import tensorflow as tf

    # A Sequential model has a list of one, other models what they were built with.
    structure = model.inputs if isinstance(model, keras.Sequential) else _input_of(model)
    if structure is None:
        raise ModelError(
            f"{source.version}, a {type(model).__name__}, does not say what its inputs are",
            hint="build it with keras.Input, or log it as SavedModel: "
            "mlflow.keras.log_model(..., save_exported_model=True)",
        )
    if isinstance(structure, list) and len(structure) == 1:
        structure = structure[0]
    tensors = keras.tree.flatten(structure)
    keys = sorted(structure) if isinstance(structure, Mapping) else [t.name for t in tensors]
    # Mappings are flattened in the order of their keys.
    names = _names(keys, source)
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=f"input_{number}")
        for number, tensor in enumerate(tensors)
    ]

    def predict(*values: Any) -> dict[str, Any]:
        packed = keras.tree.pack_sequence_as(structure, list(values))
        return _by_name(model(packed, training=False), source)

    return TensorflowModel(names=names, specs=tuple(specs), predict=predict)


def _input_of(model: Any) -> Any | None:
    try:
        return model.input
    except (AttributeError, ValueError):
        return None


def _of_saved_model(model: Any, source: SourceModel) -> TensorflowModel:
    import tensorflow as tf

    function = model.signatures.get(_SIGNATURE)
    if function is None:
        found = ", ".join(sorted(model.signatures)) or "none"
        raise ModelError(
            f"the SavedModel of {source.version} has no signature {_SIGNATURE!r}; it has {found}",
            hint="give the method an input_signature (tf.function), and name it in "
            "saved_model_kwargs={'signatures': ...} of mlflow.tensorflow.log_model",
        )
    given: Mapping[str, Any] = function.structured_input_signature[1]
    keys = sorted(given)
    specs = [tf.TensorSpec(given[key].shape, given[key].dtype, name=f"input_{number}")
             for number, key in enumerate(keys)]  # fmt: skip

    def predict(*values: Any) -> dict[str, Any]:
        # The loaded object owns the variables, and lives as long as this function.
        answers = model.signatures[_SIGNATURE](**dict(zip(keys, values, strict=True)))
        return dict(sorted(answers.items())) if len(answers) > 1 else _by_name(answers, source)

    return TensorflowModel(names=_names(keys, source), specs=tuple(specs), predict=predict)


def _names(keys: Sequence[str], source: SourceModel) -> tuple[str, ...]:
    """The names of the model where somebody chose them, else those of the signature, else numbers.

    A model that was trained again must not get other names.
    """
    schema = input_schema(source)
    logged = schema.input_names() if schema is not None and schema.has_input_names() else []
    if not any(_AUTOMATIC.fullmatch(key) for key in keys) or set(logged) == set(keys):
        return tuple(keys)
    if len(keys) == 1:
        return (str(logged[0]) if len(logged) == 1 else "input",)
    return tuple(f"input_{number}" for number in range(len(keys)))


def _by_name(result: Any, source: SourceModel) -> dict[str, Any]:
    import tensorflow as tf

    if isinstance(result, Mapping):
        named = {str(key): result[key] for key in sorted(result)}
        if list(named) == ["output_0"]:  # of Keras' own export
            named = {"output": named["output_0"]}
    elif isinstance(result, (list, tuple)) and len(result) != 1:
        named = {f"output_{number}": value for number, value in enumerate(result)}
    else:
        named = {"output": result[0] if isinstance(result, (list, tuple)) else result}
    wrong = {type(value).__name__ for value in named.values() if not isinstance(value, tf.Tensor)}
    if wrong or not named:
        raise ModelError(
            f"{source.version} returns {', '.join(sorted(wrong)) or 'nothing'}; a tensor, or a "
            "list or dict of tensors is supported",
            hint=HOW_TO_LOG,
        )
    return named
