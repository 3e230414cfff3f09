from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import mlflow.lightgbm
import numpy as np
import pandas as pd
import pytest
from lightgbm import Booster, Dataset, LGBMClassifier, LGBMRegressor
from mlflow.models import infer_signature

from pipeline.artifacts import OnnxModel, SourceModel
from pipeline.errors import DependencyError, ModelError
from pipeline.exporters.lightgbm import LightgbmExporter
from pipeline.testing.exporter_contract import ExporterContract, source_from_folder

RNG = np.random.default_rng(12)
WHOLE = RNG.normal(size=(500, 5))
WHOLE[:, 4] = RNG.integers(0, 8, 500)
TRAINED = WHOLE.copy()
TRAINED[:, :4][RNG.random((500, 4)) < 0.1] = np.nan
SCORE = np.where(np.isin(WHOLE[:, 4], [1, 3, 6]), 1.0, -0.5) + np.nan_to_num(TRAINED[:, 0])
IS_POSITIVE = (SCORE > 0).astype(int)
GRADE = np.digitize(SCORE, [-0.5, 0.7])
# What clients can send: numbers that FP32 holds.
ROWS = RNG.normal(size=(2000, 5)).astype(np.float32).astype(np.float64)
ROWS[:, 4] = RNG.integers(-1, 10, 2000)
ROWS[RNG.random(ROWS.shape) < 0.1] = np.nan
ROWS[RNG.random(ROWS.shape) < 0.1] = 0.0
SMALL = {"n_estimators": 12, "num_leaves": 15, "verbose": -1, "n_jobs": 1}
TRUSTED = [
    "collections.OrderedDict",
    "collections.defaultdict",
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
]


def save(folder: Path, model: Any, inputs: Any = TRAINED, **options: Any) -> SourceModel:
    if not isinstance(model, Booster):
        options.setdefault("serialization_format", "cloudpickle")
    mlflow.lightgbm.save_model(
        model,
        folder,
        pip_requirements=[],
        input_example=inputs[:6],
        signature=infer_signature(inputs),
        **options,
    )
    return source_from_folder(folder)


@pytest.fixture
def exact(tmp_path: Path, expect_exact: Callable[..., OnnxModel]) -> Callable[..., OnnxModel]:
    def run(model: Any, inputs: Any = TRAINED, rows: Any = ROWS, **options: Any) -> OnnxModel:
        source = save(tmp_path / "model", model, inputs, **options)
        return expect_exact(LightgbmExporter(), source, rows)

    return run


class TestContract(ExporterContract):
    exporter = LightgbmExporter

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        model = LGBMClassifier(**SMALL).fit(TRAINED, GRADE)
        return save(tmp_path_factory.mktemp("logged") / "model", model)


def outputs(onnx: OnnxModel) -> list[str]:
    return [str(spec) for spec in onnx.outputs]


@pytest.mark.parametrize("labels", [IS_POSITIVE, GRADE], ids=["binary", "three classes"])
def test_a_classifier_gives_a_label_and_probabilities(
    exact: Callable[..., OnnxModel], labels: Any
) -> None:
    onnx = exact(LGBMClassifier(**SMALL).fit(TRAINED, labels))
    assert [str(spec) for spec in onnx.inputs] == ["X: FP32[?,5]"]
    assert outputs(onnx) == ["label: INT64[?]", f"probabilities: FP32[?,{labels.max() + 1}]"]
    assert onnx.is_batching
    assert "lightgbm" in onnx.tools


def test_labels_that_are_text(exact: Callable[..., OnnxModel]) -> None:
    model = LGBMClassifier(**SMALL).fit(TRAINED, np.array(["no", "yes"])[IS_POSITIVE])
    assert outputs(exact(model))[0] == "label: STRING[?]"


@pytest.mark.parametrize(
    "model",
    [
        LGBMRegressor(**SMALL),
        LGBMRegressor(**SMALL, boosting_type="rf", bagging_freq=1, bagging_fraction=0.7),
        LGBMRegressor(**SMALL, boosting_type="dart"),
        LGBMRegressor(**SMALL, reg_sqrt=True),
    ],
    ids=["plain", "forest", "dart", "square root"],
)
def test_a_regressor_gives_one_column(exact: Callable[..., OnnxModel], model: Any) -> None:
    assert outputs(exact(model.fit(TRAINED, SCORE))) == ["prediction: FP32[?,1]"]


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, TRAINED),
        ({}, WHOLE),
        ({"use_missing": False}, TRAINED),
        ({"zero_as_missing": True}, np.nan_to_num(TRAINED)),
    ],
    ids=["seen", "never seen", "ignored", "zeros"],
)
def test_missing_values_go_where_they_went(
    exact: Callable[..., OnnxModel], options: dict[str, bool], trained: Any
) -> None:
    exact(LGBMRegressor(**SMALL, **options).fit(trained, SCORE))


@pytest.mark.parametrize("most_one_hot", [1, 100], ids=["by sets", "by single categories"])
def test_categories_as_whole_numbers(exact: Callable[..., OnnxModel], most_one_hot: int) -> None:
    model = LGBMClassifier(
        **SMALL, min_data_per_group=5, cat_smooth=1, max_cat_to_onehot=most_one_hot
    )
    model.fit(TRAINED, GRADE, categorical_feature=[4])
    assert "==" in set(model.booster_.trees_to_dataframe()["decision_type"])
    exact(model)


def test_training_that_stopped_early_answers_with_its_best_iteration(
    exact: Callable[..., OnnxModel],
) -> None:
    noise = np.where(np.random.default_rng(0).random(250) < 0.3, 1, IS_POSITIVE[:250])
    model = LGBMClassifier(n_estimators=100, verbose=-1, n_jobs=1).fit(
        TRAINED[:250],
        noise,
        eval_X=TRAINED[250:],
        eval_y=IS_POSITIVE[250:],
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
    )
    assert 1 < model.best_iteration_ < model.n_estimators
    exact(model)


OBJECTIVES = {
    "binary": (IS_POSITIVE, 1),
    "multiclass": (GRADE, 3),
    "multiclassova": (GRADE, 3),
    "cross_entropy": (IS_POSITIVE, 1),
    "cross_entropy_lambda": (IS_POSITIVE, 1),
    "poisson": (GRADE, 1),
    "gamma": (np.abs(SCORE) + 0.1, 1),
    "regression": (SCORE, 1),
    "quantile": (SCORE, 1),
    "lambdarank": (IS_POSITIVE, 1),
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_native_booster_predicts_what_its_objective_says(
    exact: Callable[..., OnnxModel], objective: str
) -> None:
    labels, width = OBJECTIVES[objective]
    options = {"objective": objective, "verbose": -1, "num_threads": 1, "sigmoid": 1.7}
    if objective.startswith("multi"):
        options["num_class"] = 3
    groups = [20] * 25 if objective == "lambdarank" else None
    booster = lightgbm.train(options, Dataset(TRAINED, labels, group=groups), 8)
    assert outputs(exact(booster)) == [f"prediction: FP32[?,{width}]"]


def test_columns_of_any_name_saved_by_skops(exact: Callable[..., OnnxModel]) -> None:
    frame = pd.DataFrame(TRAINED, columns=["a b", "age (years)", "x.y", "é", "label"])
    model = LGBMClassifier(**SMALL).fit(frame, GRADE)
    rows = pd.DataFrame(ROWS, columns=frame.columns)
    exact(model, frame, rows, serialization_format="skops", skops_trusted_types=TRUSTED)


class TestNumbersThatFp32CannotTellApart:
    """Seconds since 1970: one FP32 number stands for two minutes."""

    SECONDS = 1.7e9 + np.arange(500.0).reshape(-1, 1)

    def test_travel_as_fp64(self, exact: Callable[..., OnnxModel]) -> None:
        model = LGBMRegressor(**SMALL).fit(self.SECONDS, self.SECONDS[:, 0] % 60)
        onnx = exact(model, self.SECONDS, self.SECONDS)
        assert [str(spec) for spec in onnx.inputs] == ["X: FP64[?,1]"]


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., ModelError]:
    def run(model: Any, inputs: Any = TRAINED) -> ModelError:
        source = save(tmp_path / "model", model, inputs)
        (tmp_path / "out").mkdir()
        with pytest.raises(ModelError) as caught:
            LightgbmExporter().export(source, tmp_path / "out")
        assert caught.value.hint
        return caught.value

    return run


def test_linear_leaves_are_refused(refused: Callable[..., ModelError]) -> None:
    model = LGBMRegressor(**SMALL, linear_tree=True).fit(WHOLE, SCORE)
    assert "linear models" in refused(model, WHOLE).message


def test_pandas_categories_are_refused(refused: Callable[..., ModelError]) -> None:
    frame = pd.DataFrame(WHOLE, columns=list("abcde"))
    frame["e"] = pd.Categorical(frame["e"].astype(int).astype(str))
    model = LGBMClassifier(**SMALL).fit(frame, IS_POSITIVE)
    assert "pandas categories" in refused(model, frame).message


def test_an_objective_of_its_author_is_refused(refused: Callable[..., ModelError]) -> None:
    def squared(labels: Any, predictions: Any) -> tuple[Any, Any]:
        return predictions - labels, np.ones_like(labels)

    assert (
        "objective" in refused(LGBMRegressor(**SMALL, objective=squared).fit(WHOLE, SCORE)).message
    )


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "model", LGBMRegressor(**SMALL).fit(WHOLE, SCORE))
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(DependencyError) as caught:
        LightgbmExporter().export(source, tmp_path)
    assert "tritonpipe[boosting]" in caught.value.hint
