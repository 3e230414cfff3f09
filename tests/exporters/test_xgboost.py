from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.xgboost
import numpy as np
import pandas as pd
import pytest
import xgboost
from mlflow.models import infer_signature
from xgboost import DMatrix, XGBClassifier, XGBRanker, XGBRegressor, XGBRFClassifier

from pipeline.artifacts import OnnxModel, SourceModel
from pipeline.errors import DependencyError, ModelError
from pipeline.exporters.xgboost import _LINKS, XgboostExporter
from pipeline.testing.exporter_contract import ExporterContract, source_from_folder

RNG = np.random.default_rng(11)
TRAINED = RNG.normal(size=(400, 5)).astype(np.float32)
TRAINED[:, 4] = RNG.integers(0, 8, 400)
TRAINED[:, :4][RNG.random((400, 4)) < 0.1] = np.nan
SCORE = np.where(np.isin(TRAINED[:, 4], [1, 3, 6]), 1.0, -0.5) + np.nan_to_num(TRAINED[:, 0])
IS_POSITIVE = (SCORE > 0).astype(int)
GRADE = np.digitize(SCORE, [-0.5, 0.7])
ROWS = RNG.normal(size=(2000, 5)).astype(np.float32)
ROWS[:, 4] = RNG.integers(0, 10, 2000)
ROWS[RNG.random(ROWS.shape) < 0.1] = np.nan
FRAME = pd.DataFrame(
    TRAINED.astype(np.float64), columns=["a b", "age (years)", "a_b", "é", "label"]
)
SMALL = {"n_estimators": 12, "max_depth": 4, "n_jobs": 1}


def save(folder: Path, model: Any, inputs: Any = TRAINED, **options: Any) -> SourceModel:
    options.setdefault("signature", infer_signature(inputs))
    mlflow.xgboost.save_model(
        model, folder, pip_requirements=[], input_example=inputs[:6], **options
    )
    return source_from_folder(folder)


@pytest.fixture
def exact(tmp_path: Path, expect_exact: Callable[..., OnnxModel]) -> Callable[..., OnnxModel]:
    def run(model: Any, inputs: Any = TRAINED, rows: Any = ROWS) -> OnnxModel:
        return expect_exact(XgboostExporter(), save(tmp_path / "model", model, inputs), rows)

    return run


class TestContract(ExporterContract):
    exporter = XgboostExporter

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        model = XGBClassifier(**SMALL).fit(TRAINED, GRADE)
        return save(tmp_path_factory.mktemp("logged") / "model", model)


def outputs(onnx: OnnxModel) -> list[str]:
    return [str(spec) for spec in onnx.outputs]


@pytest.mark.parametrize("labels", [IS_POSITIVE, GRADE], ids=["binary", "three classes"])
def test_a_classifier_gives_a_label_and_probabilities(
    exact: Callable[..., OnnxModel], labels: Any
) -> None:
    onnx = exact(XGBClassifier(**SMALL).fit(TRAINED, labels))
    assert [str(spec) for spec in onnx.inputs] == ["X: FP32[?,5]"]
    assert outputs(onnx) == ["label: INT64[?]", f"probabilities: FP32[?,{labels.max() + 1}]"]
    assert {"xgboost-cpu", "xgboost"} & set(onnx.tools)


@pytest.mark.parametrize(
    "model",
    [
        XGBRegressor(**SMALL),
        XGBRegressor(**SMALL, base_score=3.0),
        XGBRegressor(**SMALL, booster="dart", rate_drop=0.4),
        XGBRegressor(**SMALL, num_parallel_tree=3, subsample=0.7),
        XGBRegressor(**SMALL, max_leaves=9, tree_method="hist", grow_policy="lossguide"),
    ],
    ids=["plain", "base score", "dart", "forest", "by leaf"],
)
def test_a_regressor_gives_one_column(exact: Callable[..., OnnxModel], model: Any) -> None:
    assert outputs(exact(model.fit(TRAINED, SCORE))) == ["prediction: FP32[?,1]"]


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_several_targets(exact: Callable[..., OnnxModel], strategy: str) -> None:
    model = XGBRegressor(**SMALL, multi_strategy=strategy)
    targets = np.stack([SCORE, -SCORE * SCORE], axis=1)
    assert outputs(exact(model.fit(TRAINED, targets))) == ["prediction: FP32[?,2]"]


def test_a_random_forest_and_a_ranker(exact: Callable[..., OnnxModel], tmp_path: Path) -> None:
    exact(XGBRFClassifier(n_estimators=9, max_depth=4).fit(TRAINED, GRADE))
    (tmp_path / "model").rename(tmp_path / "forest")
    exact(XGBRanker(**SMALL).fit(TRAINED, IS_POSITIVE, qid=np.arange(400) // 20))


def test_a_number_that_stands_for_a_missing_value(exact: Callable[..., OnnxModel]) -> None:
    model = XGBRegressor(**SMALL, missing=-999.0)
    exact(model.fit(np.nan_to_num(TRAINED, nan=-999), SCORE), rows=np.nan_to_num(ROWS, nan=-999))


def test_training_that_stopped_early_answers_with_its_best_iteration(
    exact: Callable[..., OnnxModel],
) -> None:
    model = XGBClassifier(n_estimators=60, early_stopping_rounds=4, learning_rate=1.0)
    noise = np.random.default_rng(0).permutation(IS_POSITIVE[:200])
    model.fit(TRAINED[:200], noise, eval_set=[(TRAINED[200:], IS_POSITIVE[200:])], verbose=False)
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()
    exact(model)


OBJECTIVES = {
    "binary:logistic": (IS_POSITIVE, 1),
    "binary:logitraw": (IS_POSITIVE, 1),
    "binary:hinge": (IS_POSITIVE, 1),
    "multi:softprob": (GRADE, 3),
    "multi:softmax": (GRADE, 1),
    "reg:squarederror": (SCORE, 1),
    "reg:absoluteerror": (SCORE, 1),
    "reg:logistic": (IS_POSITIVE, 1),
    "reg:gamma": (np.abs(SCORE) + 0.1, 1),
    "reg:quantileerror": (SCORE, 2),
    "count:poisson": (GRADE, 1),
    "survival:cox": (np.abs(SCORE) + 0.1, 1),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_native_booster_predicts_what_its_objective_says(
    exact: Callable[..., OnnxModel], objective: str
) -> None:
    labels, width = OBJECTIVES[objective]
    options: dict[str, Any] = {"objective": objective, "max_depth": 3, "nthread": 1}
    if objective.startswith("multi"):
        options["num_class"] = 3
    if "quantile" in objective:
        options["quantile_alpha"] = [0.2, 0.8]
    booster = xgboost.train(options, DMatrix(TRAINED, labels), 8)
    assert outputs(exact(booster)) == [f"prediction: FP32[?,{width}]"]


@pytest.mark.parametrize("most_one_hot", [1, 100], ids=["by sets", "by single categories"])
def test_categories_as_whole_numbers(exact: Callable[..., OnnxModel], most_one_hot: int) -> None:
    kinds = ["q"] * 4 + ["c"]
    model = XGBClassifier(**SMALL, feature_types=kinds, max_cat_to_onehot=most_one_hot)
    model.set_params(enable_categorical=True)
    exact(model.fit(TRAINED, IS_POSITIVE))


def test_an_objective_of_its_author_gives_the_sums(exact: Callable[..., OnnxModel]) -> None:
    def squared(labels: Any, predictions: Any) -> tuple[Any, Any]:
        return predictions - labels, np.ones_like(labels)

    exact(XGBRegressor(**SMALL, objective=squared).fit(TRAINED, SCORE))


def test_columns_of_any_name_are_one_matrix(exact: Callable[..., OnnxModel]) -> None:
    rows = pd.DataFrame(ROWS.astype(np.float64), columns=FRAME.columns)
    onnx = exact(XGBClassifier(**SMALL).fit(FRAME, GRADE), FRAME, rows)
    assert [str(spec) for spec in onnx.inputs] == ["X: FP32[?,5]"]


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., ModelError]:
    def run(model: Any, inputs: Any = TRAINED) -> ModelError:
        source = save(tmp_path / "model", model, inputs)
        (tmp_path / "out").mkdir()
        with pytest.raises(ModelError) as caught:
            XgboostExporter().export(source, tmp_path / "out")
        assert caught.value.hint
        return caught.value

    return run


def test_a_linear_booster_is_refused(refused: Callable[..., ModelError]) -> None:
    filled = np.nan_to_num(TRAINED)
    assert "no trees" in refused(XGBRegressor(booster="gblinear").fit(filled, SCORE)).message


def test_an_objective_that_nobody_knows_is_refused(
    refused: Callable[..., ModelError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(_LINKS, "reg:squarederror")
    model = XGBRegressor(**SMALL).fit(TRAINED, SCORE)
    assert "the objective 'reg:squarederror'" in refused(model).message


def test_pandas_categories_are_refused(refused: Callable[..., ModelError]) -> None:
    frame = FRAME.assign(label=pd.Categorical(FRAME["label"].astype(int).astype(str)))
    model = XGBClassifier(**SMALL, enable_categorical=True).fit(frame, IS_POSITIVE)
    assert "pandas categories" in refused(model, frame).message


def test_an_example_with_other_columns_is_refused(refused: Callable[..., ModelError]) -> None:
    booster = xgboost.train({}, DMatrix(TRAINED, SCORE), 2)
    assert "trained on 5" in refused(booster, TRAINED[:, :3]).message


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "model", XGBRegressor(n_estimators=2).fit(TRAINED, SCORE))
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(DependencyError) as caught:
        XgboostExporter().export(source, tmp_path)
    assert "tritonpipe[boosting]" in caught.value.hint
