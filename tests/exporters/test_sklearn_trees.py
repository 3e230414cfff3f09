"""Estimators and pipelines of scikit-learn that end in trees: no row differs from the original."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    MinMaxScaler,
    OneHotEncoder,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier, XGBRegressor

from pipeline.artifacts import OnnxModel, SourceModel
from pipeline.exporters.sklearn import SklearnExporter
from pipeline.testing.exporter_contract import ExporterContract, source_from_folder

RNG = np.random.default_rng(14)
SCALES, CENTRES = [1, 100, 3, 0.1], [0, 2000, 1, 0]


def rows_on_a_grid(count: int) -> Any:
    """Numbers that FP32 holds, few different ones: many lie on the border of a split."""
    grid = RNG.normal(size=(count, 4)).round(1) * SCALES + CENTRES
    return grid.astype(np.float32).astype(np.float64)


TRAINED = rows_on_a_grid(400)
SCORE = TRAINED[:, 0] + (TRAINED[:, 1] - 2000) / 100
IS_POSITIVE = (SCORE > 0).astype(int)
GRADE = np.digitize(SCORE, [-0.7, 0.7])
ROWS = rows_on_a_grid(2000)
MANY = {"n_estimators": 30, "n_jobs": 1}
TREES: dict[str, Callable[[], Any]] = {
    "xgboost": lambda: XGBClassifier(**MANY),
    "lightgbm": lambda: LGBMClassifier(**MANY, verbose=-1),
    "catboost": lambda: CatBoostClassifier(
        iterations=30, depth=4, verbose=0, allow_writing_files=False, thread_count=1
    ),
    "random forest": lambda: RandomForestClassifier(30, random_state=0),
    "extra trees": lambda: ExtraTreesClassifier(30, random_state=0),
    "gradient boosting": lambda: GradientBoostingClassifier(n_estimators=20),
    "histograms": lambda: HistGradientBoostingClassifier(max_iter=20),
    "one tree": lambda: DecisionTreeClassifier(random_state=0),
}


def save(folder: Path, model: Any, inputs: Any, **options: Any) -> SourceModel:
    options.setdefault("serialization_format", "cloudpickle")
    mlflow.sklearn.save_model(
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
        return expect_exact(SklearnExporter(), source, rows)

    return run


class TestContract(ExporterContract):
    exporter = SklearnExporter

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        model = make_pipeline(StandardScaler(), TREES["xgboost"]()).fit(TRAINED, GRADE)
        return save(tmp_path_factory.mktemp("logged") / "model", model, TRAINED)


@pytest.mark.parametrize("trees", TREES)
def test_a_scaler_before_trees_flips_no_split(exact: Callable[..., OnnxModel], trees: str) -> None:
    onnx = exact(make_pipeline(StandardScaler(), TREES[trees]()).fit(TRAINED, GRADE))
    assert [str(spec) for spec in onnx.inputs] == ["X: FP32[?,4]"]
    assert [str(spec) for spec in onnx.outputs] == ["label: INT64[?]", "probabilities: FP32[?,3]"]
    assert onnx.is_batching
    assert onnx.opset == 18


@pytest.mark.parametrize("trees", ["xgboost", "lightgbm", "catboost", "random forest"])
def test_trees_alone_are_logged_with_the_sklearn_flavor_too(
    exact: Callable[..., OnnxModel], trees: str
) -> None:
    exact(TREES[trees]().fit(TRAINED, GRADE))


@pytest.mark.parametrize(
    "regressor",
    [
        XGBRegressor(**MANY),
        RandomForestRegressor(20, random_state=0),
        HistGradientBoostingRegressor(max_iter=20, loss="poisson"),
    ],
    ids=["xgboost", "random forest", "histograms"],
)
def test_regressors(exact: Callable[..., OnnxModel], regressor: Any) -> None:
    onnx = exact(make_pipeline(StandardScaler(), regressor).fit(TRAINED, np.abs(SCORE)))
    assert [str(spec) for spec in onnx.outputs] == ["prediction: FP32[?,1]"]


@pytest.mark.parametrize(
    "step",
    [MinMaxScaler(), RobustScaler(), make_pipeline(SimpleImputer(), StandardScaler())],
    ids=["to a range", "by quantiles", "with missing values"],
)
def test_other_steps_before_trees(exact: Callable[..., OnnxModel], step: Any) -> None:
    rows = ROWS.copy()
    trained = TRAINED.copy()
    if isinstance(step, Pipeline):
        rows[RNG.random(rows.shape) < 0.1] = np.nan
        trained[1, 1] = np.nan
    exact(make_pipeline(step, TREES["xgboost"]()).fit(trained, IS_POSITIVE), trained, rows)


def test_a_step_without_a_64_bit_form_is_converted_all_the_same(
    exact: Callable[..., OnnxModel],
) -> None:
    """In FP32, which agrees where no value lies on the border of a split."""
    model = make_pipeline(PowerTransformer(), TREES["xgboost"]()).fit(TRAINED, IS_POSITIVE)
    between = ROWS + np.float32(0.031) * np.array(SCALES)
    exact(model, rows=between.astype(np.float32).astype(np.float64))


def test_a_step_that_does_nothing(exact: Callable[..., OnnxModel]) -> None:
    steps = [("nothing", "passthrough"), ("trees", TREES["xgboost"]())]
    exact(Pipeline(steps).fit(TRAINED, IS_POSITIVE))


def test_the_best_pipeline_of_a_search(exact: Callable[..., OnnxModel]) -> None:
    scaled = make_pipeline(StandardScaler(), TREES["xgboost"]())
    search = GridSearchCV(scaled, {"xgbclassifier__max_depth": [2, 3]}, cv=2)
    exact(search.fit(TRAINED, IS_POSITIVE))


def test_a_pipeline_saved_by_skops(exact: Callable[..., OnnxModel]) -> None:
    model = make_pipeline(StandardScaler(), TREES["xgboost"]()).fit(TRAINED, IS_POSITIVE)
    trusted = ["numpy.dtype", "xgboost.core.Booster", "xgboost.sklearn.XGBClassifier"]
    exact(model, serialization_format="skops", skops_trusted_types=trusted)


def test_ties_of_votes_go_to_the_first_class(exact: Callable[..., OnnxModel]) -> None:
    """Half of the trees for each of two classes: as 32-bit fractions, either could win."""
    model = RandomForestClassifier(22, random_state=0).fit(TRAINED, RNG.integers(0, 2, 400))
    probabilities = model.predict_proba(ROWS)
    assert (probabilities[:, 0] == probabilities[:, 1]).sum() > 100
    exact(model)


class TestColumns:
    """Numbers and text, picked by name."""

    CITIES = np.array([f"city {number}" for number in range(30)], dtype=object)
    NUMBERS = ("a b", "age (years)", "a_b", "é")

    def frame(self, numbers: Any, seed: int) -> Any:
        chance = np.random.default_rng(seed)
        frame = pd.DataFrame(numbers, columns=list(self.NUMBERS))
        frame["visits"] = chance.integers(0, 3, len(frame))
        frame["City name"] = chance.choice(self.CITIES, len(frame))
        return frame

    def pipeline(self, trees: str, numbers: Any, **options: Any) -> Any:
        steps = [
            ("numbers", numbers, list(self.NUMBERS)),
            ("as they are", "passthrough", ["visits"]),
            ("city", OneHotEncoder(handle_unknown="ignore"), ["City name"]),
        ]
        return make_pipeline(ColumnTransformer(steps, **options), TREES[trees]())

    @pytest.mark.parametrize("trees", ["xgboost", "lightgbm", "catboost", "random forest"])
    def test_mixed_columns(self, exact: Callable[..., OnnxModel], trees: str) -> None:
        frame = self.frame(TRAINED, 1)
        words = np.array(["low", "high"])[IS_POSITIVE] if trees != "xgboost" else IS_POSITIVE
        numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        model = self.pipeline(trees, numbers, sparse_threshold=0).fit(frame, words)
        onnx = exact(model, frame, self.frame(ROWS, 2))
        assert str(onnx.inputs[1]) == "age (years): FP32[?,1]"
        assert str(onnx.inputs[5]) == "City name: STRING[?,1]"

    def test_zeros_of_a_sparse_matrix_are_missing_for_xgboost(
        self, exact: Callable[..., OnnxModel]
    ) -> None:
        frame = self.frame(TRAINED, 1)
        labels = (SCORE + 2 * (frame["visits"] == 0) > 1).astype(int)
        model = self.pipeline("xgboost", StandardScaler(), sparse_threshold=1)
        model.fit(frame, labels)
        assert hasattr(model[:-1].transform(frame), "toarray")
        exact(model, frame, self.frame(ROWS, 2))


def test_numbers_that_fp32_cannot_tell_apart_travel_as_fp64(
    exact: Callable[..., OnnxModel],
) -> None:
    seconds = 1.7e9 + np.arange(400.0).reshape(-1, 1)
    model = make_pipeline(StandardScaler(), TREES["random forest"]())
    onnx = exact(model.fit(seconds, (seconds[:, 0] // 60 % 2).astype(int)), seconds, seconds)
    assert [str(spec) for spec in onnx.inputs] == ["X: FP64[?,1]"]


def test_decimals_on_the_border_of_a_split_travel_as_fp64(
    exact: Callable[..., OnnxModel],
) -> None:
    """0.2 lies between 0.1 and 0.3, just where the split is, until it is rounded."""
    tenths = RNG.normal(size=(400, 3)).round(1)
    model = make_pipeline(StandardScaler(), TREES["random forest"]())
    model.fit(tenths, RNG.integers(0, 2, 400))
    onnx = exact(model, tenths, RNG.normal(size=(2000, 3)).round(1))
    assert [str(spec) for spec in onnx.inputs] == ["X: FP64[?,3]"]
