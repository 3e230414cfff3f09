"""The ``keras`` and ``tensorflow`` flavors, on TensorFlow and through ``tf2onnx``.

The ``.keras`` format belongs to no backend, so models of all backends are loaded on TensorFlow:
what another one exports was measured to be wrong for LSTM. Guarantees: what the graph is compared
with is what TensorFlow computes from the logged model; names of inputs and outputs do not count on
with every training; Python code inside of a file (a Lambda layer) is refused, never run.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.artifacts import ONNX_FILE, SourceModel
from pipeline.errors import DependencyError, ModelError
from pipeline.exporters import Exported
from pipeline.exporters.keras_graphs import number_names, unknown_operations
from pipeline.exporters.keras_models import TensorflowModel, load_tensorflow_model
from pipeline.exporters.keras_operations import ADDED_OPERATIONS, without_captures
from pipeline.exporters.logged import (
    GENERATED_ROWS,
    HOW_TO_LOG,
    OTHER_SIZE,
    described,
    example_or_generated,
    generated_array,
    input_example,
    input_schema,
)
from pipeline.onnx_graph import onnx_model, rename_tensors
from pipeline.samples import Array, Samples

MOST_INNER_BYTES: Final = 256 * 2**20
"""Of a graph with its weights in one file."""

_PACKAGES: Final = ("keras", "onnx", "tensorflow-cpu", "tensorflow", "tf2onnx")
_OPSET: Final = 18
"""The newest that tf2onnx writes."""

_MODEL_ORIGIN: Final = "generated from the inputs of the model, no input example was logged"
ENVIRONMENT: Final = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # Otherwise the order of sums changes, and with it what the graph is compared with.
    "TF_ENABLE_ONEDNN_OPTS": "0",
}
"""Of a process before it imports TensorFlow."""


class KerasExporter:
    """A :class:`pipeline.exporters.Exporter` for Keras 3."""

    flavor: ClassVar[str] = "keras"

    def export(self, source: SourceModel, destination: Path) -> Exported:
        """Write ``onnx/model.onnx``; see the protocol."""
        _import(self.flavor)
        import onnx
        import tensorflow as tf

        folder = destination / "onnx"
        folder.mkdir()
        with _quiet():
            model = load_tensorflow_model(source, self.flavor)
            function = tf.function(model.predict, input_signature=model.specs, autograph=False)
            example, origin = _example(model, source)
            outputs = _steady(function, model, example, source)
            graph = _converted(function, model, source)
        number_names(graph, self.flavor)
        rename_tensors(graph, model.names, outputs)
        # A graph that holds large weights is copied whole by everything that reads it.
        onnx.save(
            graph,
            str(folder / ONNX_FILE),
            save_as_external_data=graph.ByteSize() > MOST_INNER_BYTES,
            location=f"{ONNX_FILE}.data",
        )
        packages = [name for name in _PACKAGES if _is_installed(name)]
        described_graph = onnx_model(folder, source=source, flavor=self.flavor, packages=packages)

        def ask(values: Mapping[str, Array]) -> Samples:
            inputs = {name: values[name] for name in model.names}
            with _quiet():
                return Samples(inputs=inputs, outputs=_predict(function, model, inputs, source))

        return Exported(onnx=described_graph, example=example, origin=origin, ask=ask)


class TensorflowExporter(KerasExporter):
    """The same for what was logged with ``mlflow.tensorflow``."""

    flavor: ClassVar[str] = "tensorflow"


def _import(flavor: str) -> None:
    os.environ.update(ENVIRONMENT)
    try:
        import keras
        import tensorflow as tf
        import tf2onnx  # noqa: F401  asked for here, so that its absence has a name
    except ImportError as error:
        raise DependencyError(
            f"exporting the {flavor} flavor needs {error.name}",
            hint="pip install 'tritonpipe[keras]'",
        ) from error
    if keras.backend.backend() != "tensorflow":
        raise DependencyError(
            f"Keras runs on {keras.backend.backend()} in this process, and is exported on "
            "TensorFlow only",
            hint="set KERAS_BACKEND=tensorflow before Keras is imported",
        )
    tf.get_logger().setLevel(logging.ERROR)


@contextmanager
def _quiet() -> Iterator[None]:
    """TensorFlow and tf2onnx tell their own developers a lot; errors are raised anyway."""
    logger = logging.getLogger("tf2onnx")
    before = logger.level
    try:
        logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _is_installed(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def _example(model: TensorflowModel, source: SourceModel) -> tuple[dict[str, Array], str]:
    """The logged inputs, or others of which the origin says that they are not logged ones."""
    if input_example(source) is None and input_schema(source) is None:
        made = zip(model.names, model.specs, strict=True)
        return {name: _generated(spec, name) for name, spec in made}, _MODEL_ORIGIN
    found, origin = example_or_generated(source)
    if isinstance(found, Mapping):
        named = {str(name): value for name, value in found.items()}
    else:
        values = found if isinstance(found, list) else [found]
        named = dict(zip(model.names, values, strict=False))
    if set(named) != set(model.names):
        raise ModelError(
            f"{source.version} takes {', '.join(model.names)}, its signature or input example has "
            f"{', '.join(named)}",
            hint=HOW_TO_LOG,
        )
    return {
        name: _as_array(named[name], spec, name, source)
        for name, spec in zip(model.names, model.specs, strict=True)
    }, origin


def _as_array(value: Any, spec: Any, name: str, source: SourceModel) -> Array:
    array = value.to_numpy() if hasattr(value, "columns") else np.asarray(value)
    wanted = np.dtype(spec.dtype.as_numpy_dtype)
    if wanted.kind == "O" and array.dtype.kind in "OUT":
        return array.astype(str).astype(object)
    is_number = array.dtype.kind in "fiub" and wanted.kind in "fiub"
    cast = array.astype(wanted) if is_number else array
    if not is_number or (wanted.kind != "f" and not np.array_equal(cast, array)):
        raise ModelError(
            f"input {name!r} of {source.version} is {array.dtype}, the model takes {wanted}",
            hint=HOW_TO_LOG,
        )
    return cast


def _generated(spec: Any, name: str) -> Array:
    sizes = (GENERATED_ROWS, *[OTHER_SIZE] * len(spec.shape))
    shape = tuple(size or sizes[axis] for axis, size in enumerate(spec.shape))
    return generated_array(np.dtype(spec.dtype.as_numpy_dtype), shape, salt=name)


def _steady(
    function: Any, model: TensorflowModel, example: Mapping[str, Array], source: SourceModel
) -> list[str]:
    """The names of the outputs, once the model is found to answer the same twice."""
    first, second = (_predict(function, model, example, source) for _ in range(2))
    for name, array in first.items():
        if not np.array_equal(array, second[name], equal_nan=array.dtype.kind == "f"):
            raise ModelError(
                f"{source.version} answers differently each time it is asked (output {name!r}): it "
                "draws random numbers",
                hint="log a model whose layers are not called with training=True",
            )
    return sorted(first)  # the order in which TensorFlow flattens them


def _predict(
    function: Any, model: TensorflowModel, values: Mapping[str, Array], source: SourceModel
) -> dict[str, Array]:
    import tensorflow as tf

    try:
        tensors = [
            tf.constant(values[name], spec.dtype)
            for name, spec in zip(model.names, model.specs, strict=True)
        ]
        return {name: _as_text(tensor.numpy()) for name, tensor in function(*tensors).items()}
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{source.version} cannot predict on its inputs: {_reason(error)}", hint=HOW_TO_LOG
        ) from error


def _reason(error: Exception) -> str:
    """The last line of what TensorFlow says; before it comes where in its own code it was."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else described(error)


def _as_text(array: Array) -> Array:
    """TensorFlow gives text as bytes."""
    return np.char.decode(array.astype(bytes)).astype(object) if array.dtype == object else array


def _converted(function: Any, model: TensorflowModel, source: SourceModel) -> Any:
    import tf2onnx

    try:
        frozen = without_captures(function, model.specs)
        graph, _ = tf2onnx.convert.from_function(
            frozen, model.specs, opset=_OPSET, custom_op_handlers=ADDED_OPERATIONS
        )
    except Exception as error:
        raise ModelError(
            f"tf2onnx cannot convert {source.version}: {_reason(error)}",
            hint="make tf2onnx.convert.from_function work, or export to ONNX yourself and log it "
            "with mlflow.onnx",
        ) from error
    unknown = unknown_operations(graph)
    if unknown:
        raise ModelError(
            f"tf2onnx cannot convert {source.version}: ONNX has no {', '.join(unknown)}",
            hint="replace the layers that need them, then log the model again",
        )
    return graph
