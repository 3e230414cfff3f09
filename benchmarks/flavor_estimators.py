"""Small real models of scikit-learn, alone, composed and after steps, for ``flavors.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
from flavor_models import (
    CUSTOMERS,
    GAPS,
    LEAVES,
    MAILS,
    MATRIX,
    SCORE,
    THREE,
    TWO,
    WORDS,
    Kind,
    fitted,
)
from lightgbm import LGBMClassifier
from sklearn import (
    calibration,
    cluster,
    discriminant_analysis,
    ensemble,
    gaussian_process,
    isotonic,
    linear_model,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    svm,
)
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    QuantileTransformer,
    StandardScaler,
    TargetEncoder,
)
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

Estimator = tuple[Callable[[], Any], Any]
"""What makes it, and what it is fitted to."""

_SMALL: Final[Any] = {"n_estimators": 30, "random_state": 0}
_PAIR: Final = [("a", linear_model.LogisticRegression()), ("b", naive_bayes.GaussianNB())]
logistic, ridge = linear_model.LogisticRegression, linear_model.Ridge

CLASSIFIERS: Final[Mapping[str, Estimator]] = {
    "LogisticRegression": (logistic, THREE),
    "StandardScaler + LogisticRegression, text labels": (
        lambda: make_pipeline(StandardScaler(), logistic()),
        WORDS,
    ),
    "SGDClassifier (hinge)": (lambda: linear_model.SGDClassifier(random_state=0), TWO),
    "LinearSVC": (svm.LinearSVC, THREE),
    "SVC": (svm.SVC, THREE),
    "KNeighborsClassifier": (neighbors.KNeighborsClassifier, THREE),
    "MLPClassifier": (lambda: neural_network.MLPClassifier((16,), max_iter=300), THREE),
    "GaussianNB": (naive_bayes.GaussianNB, THREE),
    "BernoulliNB": (naive_bayes.BernoulliNB, THREE),
    "LinearDiscriminantAnalysis": (discriminant_analysis.LinearDiscriminantAnalysis, THREE),
    "OneVsRestClassifier of LinearSVC": (
        lambda: multiclass.OneVsRestClassifier(svm.LinearSVC()),
        THREE,
    ),
    "DecisionTreeClassifier": (lambda: DecisionTreeClassifier(random_state=0), THREE),
    "RandomForestClassifier": (lambda: ensemble.RandomForestClassifier(**_SMALL), THREE),
    "ExtraTreesClassifier": (lambda: ensemble.ExtraTreesClassifier(**_SMALL), THREE),
    "GradientBoostingClassifier": (lambda: ensemble.GradientBoostingClassifier(**_SMALL), THREE),
    "HistGradientBoostingClassifier": (
        lambda: ensemble.HistGradientBoostingClassifier(max_iter=30),
        THREE,
    ),
    "AdaBoostClassifier": (lambda: ensemble.AdaBoostClassifier(**_SMALL), THREE),
    "BaggingClassifier": (lambda: ensemble.BaggingClassifier(random_state=0), THREE),
    "StackingClassifier": (lambda: ensemble.StackingClassifier(_PAIR), THREE),
    "VotingClassifier, by probability": (
        lambda: ensemble.VotingClassifier(_PAIR, voting="soft", flatten_transform=False),
        THREE,
    ),
    "CalibratedClassifierCV of LinearSVC": (
        lambda: calibration.CalibratedClassifierCV(svm.LinearSVC()),
        THREE,
    ),
    "GridSearchCV of LogisticRegression": (
        lambda: GridSearchCV(logistic(), {"C": [0.1, 1]}, cv=2),
        THREE,
    ),
    "StandardScaler + PCA + LogisticRegression": (
        lambda: make_pipeline(StandardScaler(), PCA(3), logistic()),
        THREE,
    ),
    "StandardScaler + RandomForestClassifier": (
        lambda: make_pipeline(StandardScaler(), ensemble.RandomForestClassifier(**_SMALL)),
        THREE,
    ),
    "StandardScaler + XGBClassifier": (
        lambda: make_pipeline(StandardScaler(), XGBClassifier(n_estimators=30)),
        THREE,
    ),
}
REGRESSORS: Final[Mapping[str, Estimator]] = {
    "LinearRegression": (linear_model.LinearRegression, SCORE),
    "Ridge": (ridge, SCORE),
    "PolynomialFeatures + Lasso": (
        lambda: make_pipeline(PolynomialFeatures(2), linear_model.Lasso(0.01)),
        SCORE,
    ),
    "QuantileTransformer + Ridge": (
        lambda: make_pipeline(QuantileTransformer(n_quantiles=50), ridge()),
        SCORE,
    ),
    "PoissonRegressor": (linear_model.PoissonRegressor, THREE),
    "SVR": (svm.SVR, SCORE),
    "KNeighborsRegressor": (neighbors.KNeighborsRegressor, SCORE),
    "RandomForestRegressor": (lambda: ensemble.RandomForestRegressor(**_SMALL), SCORE),
    "HistGradientBoostingRegressor": (
        lambda: ensemble.HistGradientBoostingRegressor(max_iter=30),
        SCORE,
    ),
    "RandomForestRegressor, two targets": (
        lambda: ensemble.RandomForestRegressor(**_SMALL),
        MATRIX[:, :2],
    ),
    "MultiOutputRegressor of Ridge": (
        lambda: multioutput.MultiOutputRegressor(ridge()),
        MATRIX[:, :2] + 1,
    ),
}
REFUSED: Final[Mapping[str, tuple[Callable[[], Any], Any, str]]] = {
    "MultiOutputClassifier": (
        lambda: multioutput.MultiOutputClassifier(logistic()),
        np.stack([TWO, 1 - TWO], axis=1),
        "several labels",
    ),
    "VotingClassifier, by majority": (
        lambda: ensemble.VotingClassifier(_PAIR),
        THREE,
        "skl2onnx cannot convert",
    ),
    "FunctionTransformer + Ridge": (
        lambda: make_pipeline(FunctionTransformer(np.cbrt), ridge()),
        SCORE,
        "skl2onnx cannot convert",
    ),
    "TransformedTargetRegressor": (
        lambda: TransformedTargetRegressor(ridge(), transformer=StandardScaler()),
        SCORE,
        "skl2onnx cannot convert",
    ),
    "QuadraticDiscriminantAnalysis": (
        discriminant_analysis.QuadraticDiscriminantAnalysis,
        THREE,
        "has shape",
    ),
    "GaussianProcessRegressor": (gaussian_process.GaussianProcessRegressor, SCORE, "differs by"),
    "KMeans": (lambda: cluster.KMeans(3, n_init=1), None, "neither a classifier"),
    "IsolationForest": (ensemble.IsolationForest, None, "neither a classifier"),
}
_ENCODERS: Final[Mapping[str, Any]] = {
    "OneHotEncoder": OneHotEncoder(handle_unknown="ignore"),
    "OrdinalEncoder": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "TargetEncoder": TargetEncoder(random_state=0),
}


def sklearn_kinds() -> Iterator[Kind]:
    """Estimators alone, composed, and after steps."""
    for name, (make, target) in {**CLASSIFIERS, **REGRESSORS}.items():
        yield fitted("sklearn", name, make, MATRIX, target)
    yield from _mixed_columns()
    yield from _gaps()
    # ONNX Runtime makes letters small with a locale that few images have, Triton's neither.
    for name, is_small, refusal in (("", True, "en_US.UTF-8"), (", case kept", False, "")):
        words = ColumnTransformer([("text", TfidfVectorizer(lowercase=is_small), "text")])
        yield fitted(
            "sklearn",
            f"TfidfVectorizer{name} + LogisticRegression",
            partial(make_pipeline, words, logistic()),
            MAILS,
            LEAVES,
            refusal=refusal,
        )
    for name, (make, target, refusal) in REFUSED.items():
        yield fitted("sklearn", name, make, MATRIX, target, refusal=refusal)
    yield fitted(
        "sklearn",
        "IsotonicRegression",
        isotonic.IsotonicRegression,
        MATRIX[:, :1],
        SCORE,
        refusal="skl2onnx cannot convert",
    )


def _gaps() -> Iterator[Kind]:
    makers: Mapping[str, Callable[[], Any]] = {
        "HistGradientBoostingRegressor, missing values": (
            lambda: ensemble.HistGradientBoostingRegressor(max_iter=30)
        ),
        "KNNImputer + Ridge, missing values": lambda: make_pipeline(KNNImputer(), ridge()),
        "SimpleImputer + RandomForestRegressor, missing values": (
            lambda: make_pipeline(SimpleImputer(), ensemble.RandomForestRegressor(**_SMALL))
        ),
        "RandomForestRegressor, missing values": lambda: ensemble.RandomForestRegressor(**_SMALL),
    }
    for name, make in makers.items():
        yield fitted("sklearn", name, make, GAPS, SCORE)


def _mixed_columns() -> Iterator[Kind]:
    trees = ensemble.RandomForestClassifier(**_SMALL), LGBMClassifier(verbose=-1)
    pairs = [
        *((name, logistic()) for name in _ENCODERS),
        *(("OneHotEncoder", model) for model in trees),
    ]
    for name, model in pairs:
        yield fitted(
            "sklearn",
            f"mixed columns: {name}, imputer, scaler + {type(model).__name__}",
            partial(make_pipeline, columns(_ENCODERS[name]), model),
            CUSTOMERS,
            LEAVES,
            example=customers_seen(),
        )


def customers_seen() -> Any:
    """The logged example: a gap in the numbers, and a city that was not trained on."""
    example = CUSTOMERS[:6].copy()
    example.loc[0, "City name"] = "Atlantis"
    example.loc[1, "income"] = np.nan
    return example


def columns(words: Any) -> Any:
    """Text, numbers with gaps, and flags, picked by name."""
    return ColumnTransformer(
        [
            ("words", words, ["City name", "plan"]),
            (
                "numbers",
                make_pipeline(SimpleImputer(), StandardScaler()),
                ["age (years)", "income"],
            ),
            ("flags", "passthrough", ["member"]),
        ],
        sparse_threshold=0,
    )
