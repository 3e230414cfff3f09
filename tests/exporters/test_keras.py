"""Keras and TensorFlow; skipped where they are not installed: ``make test-keras`` installs them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.models import infer_signature

from pipeline.exporters.keras import ENVIRONMENT, KerasExporter, TensorflowExporter

os.environ.update(ENVIRONMENT)
pytest.importorskip("tensorflow", reason="TensorFlow is not installed: make test-keras")

import keras
import mlflow.keras
import mlflow.tensorflow
import tensorflow as tf

from pipeline.artifacts import Export, SourceModel
from pipeline.checks.gate import check_export
from pipeline.errors import ModelError
from pipeline.exporters import keras as exporter
from pipeline.exporters.logged import GENERATED_ORIGIN
from pipeline.flows.worker import Limits, export_in_child
from pipeline.samples import load_samples
from pipeline.testing.exporter_contract import (
    ExporterContract,
    export_here,
    source_from_folder,
)

# TensorFlow's variables know NumPy 1 only.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

RNG = np.random.default_rng(5)
ROWS = RNG.normal(size=(5, 6)).astype(np.float32)
IMAGES = RNG.normal(size=(3, 8, 8, 1)).astype(np.float32)
SEQUENCES = RNG.normal(size=(3, 7, 4)).astype(np.float32)
TWO: dict[str, Any] = {
    "words": RNG.integers(0, 50, (3, 5)),
    "age": RNG.normal(size=(3, 4)).astype(np.float32),
}


def perceptron() -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )


def convolutions() -> Any:
    image = keras.Input((8, 8, 1), name="image")
    inner = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    inner = keras.layers.MaxPooling2D()(inner)
    return keras.Model(image, keras.layers.Dense(3)(keras.layers.Flatten()(inner)))


def recurrent() -> Any:
    keras.utils.set_random_seed(2)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((None, 4)),
            layers.LSTM(5, return_sequences=True),
            layers.LSTM(3),
            layers.Dense(2),
        ]
    )


def two_inputs() -> Any:
    words = keras.Input((None,), dtype="int64", name="words")
    age = keras.Input((4,), name="age")
    inner = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(50, 4)(words))
    joined = keras.layers.Concatenate()([age, inner])
    outputs = {"score": keras.layers.Dense(2)(joined), "again": keras.layers.ReLU()(age)}
    return keras.Model({"words": words, "age": age}, outputs)


def layer_of_the_author() -> Any:
    """Defined in here, so that its code is pickled and not its place."""

    class Scaled(keras.layers.Layer):  # type: ignore[misc,unused-ignore]
        def call(self, values: Any) -> Any:
            return values * 3

    return Scaled


class Module(tf.Module):  # type: ignore[misc,unused-ignore]
    def __init__(self) -> None:
        super().__init__()
        self.table = tf.Variable(RNG.normal(size=(6, 2)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, name="x")])  # type: ignore[untyped-decorator,unused-ignore]
    def __call__(self, x: Any) -> Any:
        return {"scores": x @ self.table, "best": tf.argmax(x @ self.table, axis=1)}


def save(folder: Path, model: Any, inputs: Any, flavor: str = "keras", **options: Any) -> Any:
    module = mlflow.keras if flavor == "keras" else mlflow.tensorflow
    if flavor != "keras":  # of mlflow.keras, the example cannot be saved in these versions
        options["input_example"] = inputs
    answers = model(inputs)
    answers = {k: v.numpy() for k, v in answers.items()} if isinstance(answers, dict) else answers
    signature = infer_signature(inputs, getattr(answers, "numpy", lambda: answers)())
    module.save_model(model, str(folder), signature=signature, pip_requirements=[], **options)
    return source_from_folder(folder)


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Export]:
    def run(source: SourceModel, name: str = "out") -> Export:
        (tmp_path / name).mkdir()
        kind = KerasExporter if "keras" in source.flavors else TensorflowExporter
        return export_here(kind(), source, tmp_path / name)

    return run


def assert_agrees(exported: Export) -> None:
    report = check_export(exported)
    assert report.ok, report.problems


class TestContract(ExporterContract):
    exporter = KerasExporter

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        folder = tmp_path_factory.mktemp("logged") / "model"
        return save(folder, convolutions(), IMAGES)  # type: ignore[no-any-return]

    def test_names_that_the_author_chose_are_kept(self, exported: Export) -> None:
        assert [str(spec) for spec in exported.onnx.inputs] == ["image: FP32[?,8,8,1]"]
        assert exported.samples_origin == GENERATED_ORIGIN


class TestContractOfTensorflow(ExporterContract):
    exporter = TensorflowExporter

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        folder = tmp_path_factory.mktemp("logged") / "model"
        return save(folder, two_inputs(), TWO, "tensorflow")  # type: ignore[no-any-return]

    def test_inputs_and_outputs_go_by_name(self, exported: Export) -> None:
        samples = load_samples(exported.samples)
        assert {n: a.dtype.name for n, a in samples.inputs.items()} == {
            "age": "float32",
            "words": "int64",
        }
        np.testing.assert_array_equal(samples.inputs["words"], TWO["words"])
        np.testing.assert_allclose(samples.outputs["again"], np.maximum(TWO["age"], 0))
        assert any("'words' of size 11" in probe.origin for probe in exported.probes)


def test_a_sequence_of_any_length_is_free_in_the_graph(
    export: Callable[..., Export], tmp_path: Path
) -> None:
    """The signature has the length of its example; the model knows better."""
    exported = export(save(tmp_path / "model", recurrent(), SEQUENCES))
    assert [str(spec) for spec in exported.onnx.inputs] == ["input: FP32[?,?,4]"]
    assert {load_samples(p.samples).inputs["input"].shape[1] for p in exported.probes} >= {1, 3, 15}
    assert_agrees(exported)


def test_all_forms_of_a_model_give_the_same_graph(
    export: Callable[..., Export], tmp_path: Path
) -> None:
    model = perceptron()
    sources = [
        save(tmp_path / "keras", model, ROWS),
        save(tmp_path / "exported", model, ROWS, save_exported_model=True),
        save(tmp_path / "tensorflow", model, ROWS, "tensorflow"),
        save(tmp_path / "h5", model, ROWS, "tensorflow", keras_model_kwargs={"save_format": "h5"}),
    ]
    exports = [export(source, f"out-{number}") for number, source in enumerate(sources)]
    for exported in exports:
        assert str(exported.onnx.inputs[0]) == "input: FP32[?,6]"
        assert str(exported.onnx.outputs[0]) == "output: FP32[?,3]"
        outputs = load_samples(exported.samples).outputs["output"]
        inputs = load_samples(exported.samples).inputs["input"]
        np.testing.assert_allclose(outputs, model(inputs).numpy(), rtol=1e-5, atol=1e-6)
        assert_agrees(exported)


def test_names_do_not_count_on_with_every_training(
    export: Callable[..., Export], tmp_path: Path
) -> None:
    first, second = (
        export(save(tmp_path / name, perceptron(), ROWS), f"out-{name}") for name in ("a", "b")
    )
    assert first.onnx.inputs == second.onnx.inputs
    assert first.onnx.digest == second.onnx.digest


def test_a_module_of_tensorflow_has_the_names_of_its_signature(
    export: Callable[..., Export], tmp_path: Path
) -> None:
    exported = export(save(tmp_path / "model", Module(), ROWS, "tensorflow"))
    assert [str(spec) for spec in exported.onnx.inputs] == ["x: FP32[?,6]"]
    assert [str(spec) for spec in exported.onnx.outputs] == ["best: INT64[?]", "scores: FP32[?,2]"]
    assert_agrees(exported)


def test_a_module_without_a_signature_is_refused_with_the_way_out(
    export: Callable[..., Export], tmp_path: Path
) -> None:
    class Silent(tf.Module):  # type: ignore[misc,unused-ignore]
        @tf.function  # type: ignore[untyped-decorator,unused-ignore]
        def __call__(self, x: Any) -> Any:
            return x * 2

    source = save(tmp_path / "model", Silent(), ROWS, "tensorflow")
    with pytest.raises(ModelError, match="no signature 'serving_default'; it has none"):
        export(source)


def test_layers_of_the_author_are_read_in_the_child_process(tmp_path: Path) -> None:
    """Their code was logged with the model, as a pickle."""
    kind = layer_of_the_author()
    model = keras.Sequential([keras.Input((6,)), kind(), keras.layers.Dense(2)])
    source = save(tmp_path / "model", model, ROWS, "tensorflow", custom_objects={"Scaled": kind})
    (tmp_path / "out").mkdir()
    exported = export_in_child(source, tmp_path / "out", limits=Limits(seconds=240))
    samples = load_samples(exported.samples)
    np.testing.assert_allclose(samples.outputs["output"], model(ROWS).numpy(), rtol=1e-5, atol=1e-6)
    assert_agrees(exported)


def test_layers_of_which_no_code_was_logged_are_refused_with_the_way_out(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((6,)), layer_of_the_author()()])
    source = save(tmp_path / "model", model, ROWS)
    (tmp_path / "out").mkdir()
    with pytest.raises(ModelError, match="it has Scaled, whose code was not logged") as raised:
        export_in_child(source, tmp_path / "out", limits=Limits(seconds=240))
    assert "custom_objects" in raised.value.hint


def test_python_code_inside_of_a_file_is_not_run(
    export: Callable[..., Export], tmp_path: Path
) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Lambda(lambda values: values + 1)])
    with pytest.raises(ModelError, match="has a Lambda layer, which is Python code"):
        export(save(tmp_path / "model", model, ROWS))


def test_a_model_that_draws_random_numbers_is_refused(
    export: Callable[..., Export], tmp_path: Path
) -> None:
    class Noisy(tf.Module):  # type: ignore[misc,unused-ignore]
        @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, name="x")])  # type: ignore[untyped-decorator,unused-ignore]
        def __call__(self, x: Any) -> Any:
            return x + tf.random.normal(tf.shape(x))

    source = save(tmp_path / "model", Noisy(), ROWS, "tensorflow")
    with pytest.raises(ModelError, match="answers differently each time"):
        export(source)


def test_what_onnx_does_not_have_is_named(export: Callable[..., Export], tmp_path: Path) -> None:
    class Spectrum(tf.Module):  # type: ignore[misc,unused-ignore]
        @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float32, name="x")])  # type: ignore[untyped-decorator,unused-ignore]
        def __call__(self, x: Any) -> Any:
            return tf.math.lgamma(x)

    source = save(tmp_path / "model", Spectrum(), np.abs(ROWS), "tensorflow")
    with pytest.raises(ModelError, match="Lgamma"):
        export(source)


@pytest.mark.parametrize("layer", ["gelu", "celu", "normalization"])
def test_layers_that_tf2onnx_alone_does_not_know(
    export: Callable[..., Export], tmp_path: Path, layer: str
) -> None:
    last = (
        keras.layers.Normalization(mean=0.5, variance=2.0)
        if layer == "normalization"
        else keras.layers.Activation(layer)
    )
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), last])
    exported = export(save(tmp_path / "model", model, ROWS))
    assert len(exported.onnx.inputs) == 1
    assert_agrees(exported)


def test_large_weights_lie_beside_the_graph(
    export: Callable[..., Export], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "MOST_INNER_BYTES", 4096)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(64), keras.layers.Dense(64)])
    exported = export(save(tmp_path / "model", model, ROWS))
    files = {file.name for file in exported.onnx.path.iterdir()}
    assert files == {"model.onnx", "model.onnx.data"}
    assert_agrees(exported)


def test_a_table_of_words_is_refused(export: Callable[..., Export], tmp_path: Path) -> None:
    layers = [keras.layers.StringLookup(vocabulary=["a", "b"]), keras.layers.Embedding(5, 2)]
    model = keras.Sequential([keras.Input((1,), dtype="string"), *layers])
    source = save(tmp_path / "model", model, np.array([["a"], ["c"]]), "tensorflow")
    with pytest.raises(ModelError, match="looks things up in a table"):
        export(source)
