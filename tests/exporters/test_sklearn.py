from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from onnx.helper import make_opsetid
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from pipeline.artifacts import SourceModel
from pipeline.checks.gate import check_export
from pipeline.errors import ModelError
from pipeline.exporters.logged import GENERATED_ORIGIN, LOGGED_ORIGIN
from pipeline.exporters.sklearn import SklearnExporter
from pipeline.exporters.sklearn_graphs import sort_opsets
from pipeline.onnx_graph import load_graph
from pipeline.samples import Samples, load_samples
from pipeline.tensors import DataType
from pipeline.testing.exporter_contract import (
    ExporterContract,
    export_here,
    source_from_folder,
)

CITY, AGE, INCOME, MEMBER = "City name", "age (years)", "income", "member"
RNG = np.random.default_rng(7)
MATRIX = RNG.normal(size=(80, 4)).astype(np.float32)
IS_POSITIVE = (MATRIX[:, 0] + MATRIX[:, 1] > 0).astype(int)
CUSTOMERS = pd.DataFrame(
    {
        CITY: RNG.choice(["Oslo", "Rome", "Lima"], 80).astype(object),
        AGE: RNG.integers(18, 90, 80),
        INCOME: RNG.normal(3000, 500, 80),
        MEMBER: RNG.integers(0, 2, 80).astype(bool),
    }
)
ANSWER = np.where(CUSTOMERS[INCOME] + 10 * CUSTOMERS[AGE] > 3500, "yes", "no")


def customer_pipeline() -> Any:
    return make_pipeline(
        ColumnTransformer(
            [
                ("city", OneHotEncoder(handle_unknown="ignore"), [CITY]),
                ("numbers", StandardScaler(), [AGE, INCOME]),
                ("flags", "passthrough", [MEMBER]),
            ]
        ),
        LogisticRegression(),
    ).fit(CUSTOMERS, ANSWER)


def save(folder: Path, model: Any, inputs: Any, **options: Any) -> SourceModel:
    if "signature" not in options:
        options["signature"] = infer_signature(inputs, model.predict(inputs))
    options.setdefault("input_example", inputs[:6])
    options.setdefault("serialization_format", "cloudpickle")
    mlflow.sklearn.save_model(model, folder, pip_requirements=[], **options)
    return source_from_folder(folder)


Exported = tuple[Any, Samples, str]


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., Exported]:
    """Save, export, check; gives the graph's description, the samples and their origin."""

    def run(model: Any, inputs: Any, **options: Any) -> Exported:
        source = save(tmp_path / "model", model, inputs, **options)
        (tmp_path / "out").mkdir()
        exported = export_here(SklearnExporter(), source, tmp_path / "out")
        samples = load_samples(exported.samples)
        report = check_export(exported)
        assert report.ok, report.problems
        return exported.onnx, samples, exported.samples_origin

    return run


class TestContractOfMatrices(ExporterContract):
    exporter = SklearnExporter

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        model = RandomForestClassifier(10, random_state=0).fit(MATRIX, IS_POSITIVE)
        return save(tmp_path_factory.mktemp("logged") / "model", model, MATRIX)


class TestContractOfColumns(ExporterContract):
    exporter = SklearnExporter

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        folder = tmp_path_factory.mktemp("logged") / "model"
        return save(folder, customer_pipeline(), CUSTOMERS, serialization_format="skops")


def test_operator_sets_are_in_order_whatever_the_hash_seed(export: Callable[..., Exported]) -> None:
    onnx, _samples, _origin = export(customer_pipeline(), CUSTOMERS)
    domains = [opset.domain for opset in load_graph(onnx.file).opset_import]
    assert len(domains) == 2
    assert domains == sorted(domains)
    graph = load_graph(onnx.file)
    shuffled = [make_opsetid(o.domain, o.version) for o in reversed(graph.opset_import)]
    del graph.opset_import[:]
    graph.opset_import.extend(shuffled)
    sort_opsets(graph)
    assert [opset.domain for opset in graph.opset_import] == domains


def test_a_matrix_is_one_input_and_a_classifier_has_two_outputs(
    export: Callable[..., Exported],
) -> None:
    model = LogisticRegression().fit(MATRIX, IS_POSITIVE)
    onnx, samples, origin = export(model, MATRIX, serialization_format="pickle")
    assert [str(spec) for spec in (*onnx.inputs, *onnx.outputs)] == [
        "X: FP32[?,4]",
        "label: INT64[?]",
        "probabilities: FP32[?,2]",
    ]
    assert origin == LOGGED_ORIGIN
    assert onnx.is_batching
    np.testing.assert_array_equal(samples.inputs["X"], MATRIX[:6])
    expected = model.predict_proba(MATRIX[:6]).astype(np.float32)
    np.testing.assert_array_equal(samples.outputs["probabilities"], expected)


def test_columns_keep_their_exact_names_and_an_unknown_category_agrees(
    export: Callable[..., Exported],
) -> None:
    example = CUSTOMERS.head(4).copy()
    example.loc[0, CITY] = "Atlantis"
    model = customer_pipeline()
    onnx, samples, _ = export(model, CUSTOMERS, input_example=example)
    assert [str(spec) for spec in onnx.inputs] == [
        "City name: STRING[?,1]",
        "age (years): FP32[?,1]",
        "income: FP32[?,1]",
        "member: FP32[?,1]",
    ]
    assert onnx.outputs[0].data_type is DataType.STRING
    assert samples.inputs[CITY][0, 0] == "Atlantis"
    assert list(samples.outputs["label"]) == list(model.predict(example))


def test_columns_whose_cleaned_names_collide_stay_apart(export: Callable[..., Exported]) -> None:
    frame = pd.DataFrame({"a b": MATRIX[:, 0], "a_b": MATRIX[:, 1], "a.b": MATRIX[:, 2]})
    steps = [("s", StandardScaler(), ["a.b", "a b"]), ("p", "passthrough", ["a_b"])]
    weights = np.array([1.0, 10.0, 100.0])
    model = make_pipeline(ColumnTransformer(steps), LinearRegression())
    onnx, *_ = export(model.fit(frame, frame.to_numpy() @ weights), frame)
    assert [spec.name for spec in onnx.inputs] == ["a b", "a_b", "a.b"]


def test_numeric_columns_that_nobody_picks_by_name_are_one_matrix(
    export: Callable[..., Exported],
) -> None:
    frame = CUSTOMERS[[AGE, INCOME, MEMBER]]
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(frame, CUSTOMERS[INCOME] / 7)
    onnx, samples, _ = export(model, frame)
    assert [str(spec) for spec in (*onnx.inputs, *onnx.outputs)] == [
        "X: FP32[?,3]",
        "prediction: FP32[?,1]",
    ]
    np.testing.assert_array_equal(samples.inputs["X"][:, 0], frame[AGE].head(6))


def test_a_regressor_with_several_targets(export: Callable[..., Exported]) -> None:
    model = RandomForestRegressor(5, random_state=0).fit(MATRIX, MATRIX[:, :2])
    onnx, samples, _ = export(model, MATRIX)
    assert [spec.name for spec in onnx.outputs] == ["prediction"]
    assert samples.outputs["prediction"].shape == (6, 2)


@pytest.mark.parametrize("steps", [(), (StandardScaler(),)])
def test_a_classifier_without_probabilities_has_only_a_label(
    export: Callable[..., Exported], steps: tuple[Any, ...]
) -> None:
    onnx, *_ = export(make_pipeline(*steps, LinearSVC()).fit(MATRIX, IS_POSITIVE), MATRIX)
    assert [spec.name for spec in onnx.outputs] == ["label"]


@pytest.mark.parametrize("kind", [bool, float, np.int32])
def test_labels_of_any_exact_type_travel_as_integers(
    export: Callable[..., Exported], kind: type
) -> None:
    model = LogisticRegression().fit(MATRIX, IS_POSITIVE.astype(kind))
    onnx, samples, _ = export(model, MATRIX)
    assert onnx.outputs[0].data_type is DataType.INT64
    assert list(samples.outputs["label"]) == list(model.predict(MATRIX[:6]).astype(int))


def test_rows_are_generated_from_the_signature_and_the_origin_says_so(
    export: Callable[..., Exported],
) -> None:
    _, samples, origin = export(customer_pipeline(), CUSTOMERS, input_example=None)
    assert origin == GENERATED_ORIGIN
    assert samples.rows == 8
    assert all(isinstance(item, str) for item in samples.inputs[CITY].ravel())
    assert set(samples.inputs[MEMBER].ravel()) <= {0.0, 1.0}


def test_rows_with_missing_text_are_left_out_and_counted(export: Callable[..., Exported]) -> None:
    example = CUSTOMERS.head(4).copy()
    example.loc[1, CITY] = None
    _, samples, origin = export(customer_pipeline(), CUSTOMERS, input_example=example)
    assert samples.rows == 3
    assert origin.endswith("1 rows with missing text left out")


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., ModelError]:
    def run(model: Any, inputs: Any, **options: Any) -> ModelError:
        source = save(tmp_path / "model", model, inputs, **options)
        (tmp_path / "out").mkdir()
        with pytest.raises(ModelError) as caught:
            SklearnExporter().export(source, tmp_path / "out")
        assert caught.value.hint
        return caught.value

    return run


def test_neither_signature_nor_example(refused: Callable[..., ModelError]) -> None:
    model = LogisticRegression().fit(MATRIX, IS_POSITIVE)
    error = refused(model, MATRIX, signature=False, input_example=None)
    assert "without signature and input example" in error.message
    assert "infer_signature" in error.hint


def test_an_estimator_that_predicts_nothing_to_serve(refused: Callable[..., ModelError]) -> None:
    error = refused(KMeans(2, n_init=1).fit(MATRIX), MATRIX)
    assert "KMeans" in error.message


def test_a_step_that_cannot_be_converted_is_named(refused: Callable[..., ModelError]) -> None:
    voters = [("a", LogisticRegression()), ("b", GaussianNB())]
    error = refused(VotingClassifier(voters).fit(MATRIX, IS_POSITIVE), MATRIX)
    assert "VotingClassifier" in error.message


def test_several_labels_per_row(refused: Callable[..., ModelError]) -> None:
    labels = np.stack([IS_POSITIVE, 1 - IS_POSITIVE], axis=1)
    error = refused(MultiOutputClassifier(LogisticRegression()).fit(MATRIX, labels), MATRIX)
    assert "several labels" in error.message


def test_a_whole_number_that_fp32_would_round(refused: Callable[..., ModelError]) -> None:
    frame = pd.DataFrame({"id": [16_777_217, 1] * 10, "x": MATRIX[:20, 0]})
    error = refused(LinearRegression().fit(frame, frame["x"]), frame)
    assert "'id'" in error.message
    assert "16777217" in error.message


def test_a_date(refused: Callable[..., ModelError]) -> None:
    frame = pd.DataFrame({"day": pd.to_datetime(["2024-01-01", "2024-01-02"] * 5)})
    model = LinearRegression().fit(frame.astype("int64"), np.arange(10))
    error = refused(model, frame, signature=infer_signature(frame))
    assert "'day'" in error.message


def test_a_column_with_the_name_of_an_output(refused: Callable[..., ModelError]) -> None:
    frame = pd.DataFrame({"label": MATRIX[:, 0], "x": MATRIX[:, 1]})
    columns = ColumnTransformer([("all", StandardScaler(), ["label", "x"])])
    error = refused(make_pipeline(columns, LogisticRegression()).fit(frame, IS_POSITIVE), frame)
    assert "'label'" in error.message


def test_a_damaged_file(tmp_path: Path) -> None:
    model = LogisticRegression().fit(MATRIX, IS_POSITIVE)
    source = save(tmp_path / "model", model, MATRIX, serialization_format="pickle")
    (source.path / "model.pkl").write_bytes(pickle.dumps(model)[:100])
    with pytest.raises(ModelError, match=r"model/1 cannot be loaded: UnpicklingError") as caught:
        SklearnExporter().export(source, tmp_path)
    assert caught.value.hint


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    model = LogisticRegression().fit(MATRIX, IS_POSITIVE)
    source = save(tmp_path / "model", model, MATRIX, serialization_format="pickle")
    (source.path / "model.pkl").write_bytes(b"cno_such_package.models\nModel\n.")
    with pytest.raises(ModelError, match="needs the Python module 'no_such_package'"):
        SklearnExporter().export(source, tmp_path)
