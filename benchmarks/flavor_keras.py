"""Small real models of Keras and TensorFlow for ``flavors.py``; none where they are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from flavor_models import Kind
from mlflow.models import infer_signature

from pipeline.exporters.keras import ENVIRONMENT

_RNG: Final = np.random.default_rng(22)
ROWS: Final = _RNG.normal(size=(5, 6)).astype(np.float32)
IMAGES: Final = _RNG.normal(size=(3, 16, 16, 3)).astype(np.float32)
SEQUENCES: Final = _RNG.normal(size=(3, 7, 4)).astype(np.float32)
TOKENS: Final = _RNG.integers(0, 50, (3, 8))
TWO: Final[dict[str, Any]] = {"age": SEQUENCES[:, 0], "words": TOKENS}
_ON_TORCH: Final = """
import sys, keras, mlflow.keras, numpy as np
from mlflow.models import infer_signature
keras.utils.set_random_seed(3)
model = keras.Sequential(
    [keras.Input((None, 4)), keras.layers.LSTM(6), keras.layers.Dense(2)]
)
inputs = np.ones((3, 7, 4), np.float32)
answers = keras.ops.convert_to_numpy(model(inputs))
mlflow.keras.save_model(
    model, sys.argv[1], signature=infer_signature(inputs, answers), pip_requirements=[]
)
"""


def keras_kinds() -> Iterator[Kind]:
    """Of both flavors, in all forms of MLflow."""
    if not all(find_spec(name) for name in ("keras", "tensorflow", "tf2onnx")):
        print("no Keras and TensorFlow here: pip install 'tritonpipe[keras]'", file=sys.stderr)
        return
    os.environ.update(ENVIRONMENT)
    yield _kind("MLP", perceptron, ROWS)
    yield _kind("MLP, exported as SavedModel", perceptron, ROWS, save_exported_model=True)
    yield _kind("conv net, batch normalisation", convolutions, IMAGES)
    yield _kind("depthwise conv net, global pooling", depthwise, IMAGES)
    yield _kind("conv net over sequences of any length", convolved_sequence, SEQUENCES)
    yield _kind("LSTM, two layers", recurrent("LSTM"), SEQUENCES)
    yield _kind("GRU, two layers", recurrent("GRU"), SEQUENCES)
    yield _kind("LSTM, both directions", both_directions, SEQUENCES)
    yield _kind("transformer encoder over tokens", encoder, TOKENS)
    yield _kind("MLP of mixed precision", half, ROWS)
    yield Kind(flavor="keras", name="LSTM, trained on the backend PyTorch", save=trained_on_torch)
    yield _kind("Lambda layer", lambda_layer, ROWS, refusal="has a Lambda layer")
    tensorflow = "tensorflow"
    yield _kind("MLP", perceptron, ROWS, tensorflow)
    yield _kind("MLP, HDF5", perceptron, ROWS, tensorflow, keras_model_kwargs={"save_format": "h5"})
    yield _kind("two inputs and two outputs by name", two_inputs, TWO, tensorflow)
    yield _kind("tf.Module with a signature", module, ROWS, tensorflow)
    yield _kind("words to numbers, in the graph", vocabulary, np.array([["a"], ["b"]]), tensorflow,
                refusal="in a table")  # fmt: skip


def _kind(
    name: str,
    make: Callable[[], Any],
    inputs: Any,
    flavor: str = "keras",
    *,
    refusal: str = "",
    **options: Any,
) -> Kind:
    def save(folder: Path) -> None:
        import keras
        import mlflow.keras
        import mlflow.tensorflow

        keras.utils.set_random_seed(3)
        model = make()
        answers = model(inputs)
        known = {k: v.numpy() for k, v in answers.items()} if isinstance(answers, dict) else None
        signature = infer_signature(inputs, known or answers.numpy())
        # The example of mlflow.keras cannot be saved in the versions that were tried.
        example = {} if flavor == "keras" else {"input_example": inputs}
        module = mlflow.keras if flavor == "keras" else mlflow.tensorflow
        module.save_model(
            model, str(folder), signature=signature, pip_requirements=[], **example, **options
        )

    return Kind(flavor=flavor, name=name, save=save, refusal=refusal)


def trained_on_torch(folder: Path) -> None:
    """In a process of its own: Keras has one backend for the life of a process."""
    environment = os.environ | {"KERAS_BACKEND": "torch"}
    command = [sys.executable, "-P", "-W", "ignore", "-c", _ON_TORCH, str(folder)]
    subprocess.run(command, check=True, env=environment, capture_output=True)


def perceptron() -> Any:
    """Rows to three probabilities."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((6,)),
            layers.Dense(16, activation="gelu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )


def half() -> Any:
    """The same, computed in FP16."""
    import keras

    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return perceptron()
    finally:
        keras.mixed_precision.set_global_policy("float32")


def convolutions() -> Any:
    """Images to ten scores."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((16, 16, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def depthwise() -> Any:
    """Images of any size, as MobileNet begins and ends."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((None, None, 3)),
            layers.SeparableConv2D(8, 3, strides=2, padding="same"),
            layers.ReLU(max_value=6),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )


def convolved_sequence() -> Any:
    """Each step from those before it."""
    from keras import Input, Sequential, layers

    parts = [layers.Conv1D(8, 3, padding="causal", dilation_rate=n) for n in (1, 2)]
    return Sequential([Input((None, 4)), *parts, layers.GlobalMaxPooling1D(), layers.Dense(2)])


def recurrent(kind: str) -> Callable[[], Any]:
    """Sequences of any length to two scores."""

    def make() -> Any:
        from keras import Input, Sequential, layers

        cell = getattr(layers, kind)
        return Sequential(
            [Input((None, 4)), cell(6, return_sequences=True), cell(5), layers.Dense(2)]
        )

    return make


def both_directions() -> Any:
    """An answer for each step."""
    from keras import Input, Sequential, layers

    inner = layers.Bidirectional(layers.LSTM(5, return_sequences=True))
    return Sequential([Input((None, 4)), inner, layers.Dense(2)])


def encoder() -> Any:
    """Attention, sums and norms."""
    from keras import Input, Model, layers

    tokens = Input((None,), dtype="int32", name="tokens")
    inner = layers.Embedding(50, 16)(tokens)
    for _ in range(2):
        inner = layers.LayerNormalization()(inner + layers.MultiHeadAttention(2, 8)(inner, inner))
        inner = inner + layers.Dense(16, activation="relu")(inner)
    return Model(tokens, layers.Dense(4, activation="softmax")(inner))


def two_inputs() -> Any:
    """Numbers and tokens."""
    from keras import Input, Model, layers

    age = Input((4,), name="age")
    words = Input((None,), dtype="int64", name="words")
    inner = layers.GlobalAveragePooling1D()(layers.Embedding(50, 8)(words))
    joined = layers.Concatenate()([age, inner])
    outputs = {"score": layers.Dense(2)(joined), "risk": layers.Dense(1)(joined)}
    return Model({"age": age, "words": words}, outputs)


def lambda_layer() -> Any:
    """Python code inside of the file."""
    from keras import Input, Sequential, layers

    return Sequential([Input((6,)), layers.Lambda(lambda values: values * 2)])


def module() -> Any:
    """Without Keras."""
    import tensorflow as tf

    class Linear(tf.Module):  # type: ignore[misc,unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.table = tf.Variable(_RNG.normal(size=(6, 2)).astype(np.float32))

        @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, name="x")])  # type: ignore[untyped-decorator,unused-ignore]
        def __call__(self, x: Any) -> Any:
            return {"scores": x @ self.table, "best": tf.argmax(x @ self.table, axis=1)}

    return Linear()


def vocabulary() -> Any:
    """A table of words, which ONNX has not."""
    from keras import Input, Sequential, layers

    table = layers.StringLookup(vocabulary=["a", "b"])
    return Sequential([Input((1,), dtype="string"), table, layers.Embedding(5, 2)])
