from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.catboost
import numpy as np
import pandas as pd
import pytest
from catboost import CatBoost, CatBoostClassifier, CatBoostRanker, CatBoostRegressor
from mlflow.models import infer_signature

from pipeline.artifacts import OnnxModel, SourceModel
from pipeline.errors import DependencyError, ModelError
from pipeline.exporters.catboost import CatboostExporter
from pipeline.testing.exporter_contract import ExporterContract, source_from_folder

RNG = np.random.default_rng(13)
WHOLE = RNG.normal(size=(400, 4)).astype(np.float32)
TRAINED = WHOLE.copy()
TRAINED[RNG.random((400, 4)) < 0.1] = np.nan
SCORE = WHOLE[:, 0] + WHOLE[:, 1] * WHOLE[:, 2]
IS_POSITIVE = (SCORE > 0).astype(int)
GRADE = np.digitize(SCORE, [-0.5, 0.7])
ROWS = RNG.normal(size=(2000, 4)).astype(np.float32)
ROWS[RNG.random(ROWS.shape) < 0.1] = np.nan
QUIET = {"verbose": 0, "allow_writing_files": False, "thread_count": 1}
SMALL = {"iterations": 12, "depth": 4, **QUIET}


def save(folder: Path, model: Any, inputs: Any = TRAINED) -> SourceModel:
    mlflow.catboost.save_model(
        model,
        folder,
        pip_requirements=[],
        input_example=inputs[:6],
        signature=infer_signature(inputs),
    )
    return source_from_folder(folder)


@pytest.fixture
def exact(tmp_path: Path, expect_exact: Callable[..., OnnxModel]) -> Callable[..., OnnxModel]:
    def run(model: Any, inputs: Any = TRAINED, rows: Any = ROWS) -> OnnxModel:
        return expect_exact(CatboostExporter(), save(tmp_path / "model", model, inputs), rows)

    return run


class TestContract(ExporterContract):
    exporter = CatboostExporter

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        model = CatBoostClassifier(**SMALL).fit(TRAINED, GRADE)
        return save(tmp_path_factory.mktemp("logged") / "model", model)


def outputs(onnx: OnnxModel) -> list[str]:
    return [str(spec) for spec in onnx.outputs]


WORDS = np.array(["low", "middle", "high"])


@pytest.mark.parametrize(
    ("labels", "kind"),
    [(IS_POSITIVE, "INT64"), (GRADE, "INT64"), (WORDS[IS_POSITIVE], "STRING"),
     (WORDS[GRADE], "STRING"), (IS_POSITIVE > 0, "INT64")],
    ids=["binary", "three classes", "two words", "three words", "yes or no"],
)  # fmt: skip
def test_a_classifier_gives_a_label_and_probabilities(
    exact: Callable[..., OnnxModel], labels: Any, kind: str
) -> None:
    onnx = exact(CatBoostClassifier(**SMALL).fit(TRAINED, labels))
    width = len(np.unique(labels))
    assert [str(spec) for spec in onnx.inputs] == ["X: FP32[?,4]"]
    assert outputs(onnx) == [f"label: {kind}[?]", f"probabilities: FP32[?,{width}]"]
    assert onnx.is_batching
    assert "catboost" in onnx.tools


@pytest.mark.parametrize("mode", ["Min", "Max"])
def test_missing_values_go_where_the_mode_says(exact: Callable[..., OnnxModel], mode: str) -> None:
    exact(CatBoostRegressor(**SMALL, nan_mode=mode).fit(TRAINED, SCORE))


def test_a_missing_value_where_none_was_in_training(exact: Callable[..., OnnxModel]) -> None:
    exact(CatBoostRegressor(**SMALL).fit(WHOLE, SCORE))


@pytest.mark.parametrize("policy", ["SymmetricTree", "Depthwise", "Lossguide"])
@pytest.mark.parametrize("has_classes", [False, True], ids=["one number", "three classes"])
def test_trees_of_any_shape(
    exact: Callable[..., OnnxModel], policy: str, has_classes: bool
) -> None:
    model = (CatBoostClassifier if has_classes else CatBoostRegressor)(**SMALL, grow_policy=policy)
    exact(model.fit(TRAINED, GRADE if has_classes else SCORE))


@pytest.mark.parametrize("loss", ["CrossEntropy", "MultiClass", "MultiClassOneVsAll"])
def test_losses_of_classifiers(exact: Callable[..., OnnxModel], loss: str) -> None:
    """CatBoost's own export is 0.16 off on one-against-all probabilities."""
    labels = IS_POSITIVE if loss == "CrossEntropy" else GRADE
    exact(CatBoostClassifier(**SMALL, loss_function=loss).fit(TRAINED, labels))


LOSSES = {
    "MAE": (SCORE, 1),
    "Poisson": (np.abs(SCORE), 1),
    "Tweedie:variance_power=1.5": (np.abs(SCORE), 1),
    "MultiQuantile:alpha=0.2,0.8": (SCORE, 2),
    "MultiRMSE": (np.stack([SCORE, -SCORE], axis=1), 2),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_of_regressors(exact: Callable[..., OnnxModel], loss: str) -> None:
    """CatBoost's own export leaves the exponent of Poisson models out, and has no MultiRMSE."""
    targets, width = LOSSES[loss]
    onnx = exact(CatBoostRegressor(**SMALL, loss_function=loss).fit(TRAINED, targets))
    assert outputs(onnx) == [f"prediction: FP32[?,{width}]"]


def test_a_native_model_gives_the_sums(exact: Callable[..., OnnxModel]) -> None:
    model = CatBoost({**SMALL, "loss_function": "Logloss"}).fit(TRAINED, IS_POSITIVE)
    assert outputs(exact(model)) == ["prediction: FP32[?,1]"]


def test_a_ranker(exact: Callable[..., OnnxModel]) -> None:
    exact(CatBoostRanker(**SMALL).fit(TRAINED, IS_POSITIVE, group_id=np.arange(400) // 20))


def test_columns_of_any_name_are_one_matrix(exact: Callable[..., OnnxModel]) -> None:
    frame = pd.DataFrame(TRAINED, columns=["a b", "age (years)", "a_b", "label"])
    rows = pd.DataFrame(ROWS, columns=frame.columns)
    onnx = exact(CatBoostClassifier(**SMALL).fit(frame, GRADE), frame, rows)
    assert [str(spec) for spec in onnx.inputs] == ["X: FP32[?,4]"]


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., ModelError]:
    def run(model: Any, inputs: Any = TRAINED) -> ModelError:
        source = save(tmp_path / "model", model, inputs)
        (tmp_path / "out").mkdir()
        with pytest.raises(ModelError) as caught:
            CatboostExporter().export(source, tmp_path / "out")
        assert caught.value.hint
        return caught.value

    return run


def test_categories_are_refused(refused: Callable[..., ModelError]) -> None:
    frame = pd.DataFrame(WHOLE, columns=list("abcd")).assign(
        city=np.array(["Oslo", "Rome"], dtype=object)[IS_POSITIVE]
    )
    model = CatBoostClassifier(**SMALL, cat_features=["city"]).fit(frame, GRADE)
    error = refused(model, frame)
    assert "categorical features" in error.message
    assert "does not support" in error.message


def test_a_loss_that_predicts_its_own_uncertainty_is_refused(
    refused: Callable[..., ModelError],
) -> None:
    model = CatBoostRegressor(**SMALL, loss_function="RMSEWithUncertainty").fit(TRAINED, SCORE)
    assert "RMSEWithUncertainty" in refused(model).message


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "model", CatBoostRegressor(**SMALL).fit(TRAINED, SCORE))
    monkeypatch.setitem(sys.modules, "catboost", None)
    with pytest.raises(DependencyError) as caught:
        CatboostExporter().export(source, tmp_path)
    assert "tritonpipe[boosting]" in caught.value.hint
