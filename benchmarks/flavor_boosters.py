"""Small real models of XGBoost, LightGBM and CatBoost, for ``flavors.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import lightgbm
import numpy as np
import pandas as pd
import xgboost
from catboost import CatBoostClassifier, CatBoostRegressor
from flavor_models import CUSTOMERS, GAPS, MATRIX, SCORE, THREE, TWO, WORDS, Kind, fitted, save
from lightgbm import LGBMClassifier, LGBMRegressor
from xgboost import XGBClassifier, XGBRegressor

NAMED: Final = pd.DataFrame(MATRIX, columns=["a b", "age (years)", "c", "é", "label"])
WHOLE: Final = np.random.default_rng(22).integers(0, 8, (len(MATRIX), 1))
CODES: Final = np.concatenate([MATRIX[:, :4], WHOLE], axis=1)
CATEGORIES: Final = NAMED.assign(label=pd.Categorical(WHOLE[:, 0].astype(str)))
CITIES: Final = NAMED.assign(label=CUSTOMERS["City name"])
_XGB: Final[Any] = {"n_estimators": 30, "max_depth": 4, "n_jobs": 1}
_LGB: Final[Any] = {"n_estimators": 30, "num_leaves": 15, "verbose": -1, "n_jobs": 1}
_CAT: Final[Any] = {"iterations": 30, "depth": 4, "verbose": 0, "allow_writing_files": False}

Trained = tuple[Callable[[], Any], Any, Any, str]
"""What makes an estimator, its rows, its targets, and how it is refused."""

XGBOOST: Final[Mapping[str, Trained]] = {
    "XGBClassifier, two classes": (lambda: XGBClassifier(**_XGB), MATRIX, TWO, ""),
    "XGBClassifier, three classes, missing values": (
        lambda: XGBClassifier(**_XGB),
        GAPS,
        THREE,
        "",
    ),
    "XGBRegressor, named columns": (lambda: XGBRegressor(**_XGB), NAMED, SCORE, ""),
    "XGBClassifier, categories as whole numbers": (
        lambda: XGBClassifier(**_XGB, feature_types=["q"] * 4 + ["c"], enable_categorical=True),
        CODES,
        TWO,
        "",
    ),
    "XGBClassifier, pandas categories": (
        lambda: XGBClassifier(**_XGB, enable_categorical=True),
        CATEGORIES,
        TWO,
        "pandas categories",
    ),
    "XGBRegressor, linear booster": (
        lambda: XGBRegressor(booster="gblinear"),
        MATRIX,
        SCORE,
        "no trees",
    ),
}
LIGHTGBM: Final[Mapping[str, Trained]] = {
    "LGBMClassifier, two classes": (lambda: LGBMClassifier(**_LGB), MATRIX, TWO, ""),
    "LGBMClassifier, three text labels, missing values": (
        lambda: LGBMClassifier(**_LGB),
        GAPS,
        WORDS,
        "",
    ),
    "LGBMRegressor, named columns": (lambda: LGBMRegressor(**_LGB), NAMED, SCORE, ""),
    "LGBMClassifier, categories as whole numbers": (
        lambda: LGBMClassifier(**_LGB, min_data_per_group=5, cat_smooth=1, categorical_feature=[4]),
        CODES,
        THREE,
        "",
    ),
    "LGBMClassifier, pandas categories": (
        lambda: LGBMClassifier(**_LGB),
        CATEGORIES,
        TWO,
        "pandas categories",
    ),
    "LGBMRegressor, linear leaves": (
        lambda: LGBMRegressor(**_LGB, linear_tree=True),
        MATRIX,
        SCORE,
        "linear models",
    ),
}
CATBOOST: Final[Mapping[str, Trained]] = {
    "CatBoostClassifier, two classes": (lambda: CatBoostClassifier(**_CAT), MATRIX, TWO, ""),
    "CatBoostClassifier, three classes, missing values": (
        lambda: CatBoostClassifier(**_CAT),
        GAPS,
        THREE,
        "",
    ),
    "CatBoostClassifier, three text labels": (
        lambda: CatBoostClassifier(**_CAT),
        MATRIX,
        WORDS,
        "",
    ),
    "CatBoostRegressor, named columns": (lambda: CatBoostRegressor(**_CAT), NAMED, SCORE, ""),
    "CatBoostClassifier, categories": (
        lambda: CatBoostClassifier(**_CAT, cat_features=["label"]),
        CITIES,
        TWO,
        "categorical features",
    ),
}
OBJECTIVES: Final[Mapping[str, Mapping[str, Any]]] = {
    "xgboost": {"binary:logistic": TWO, "multi:softprob": THREE, "count:poisson": THREE},
    "lightgbm": {"regression": SCORE, "binary": TWO, "multiclass": THREE},
}


def booster_kinds() -> Iterator[Kind]:
    """Estimators, then native boosters."""
    for flavor, kinds in (("xgboost", XGBOOST), ("lightgbm", LIGHTGBM), ("catboost", CATBOOST)):
        for name, (make, inputs, target, refusal) in kinds.items():
            yield fitted(flavor, name, make, inputs, target, refusal=refusal)
        for objective in OBJECTIVES.get(flavor, ()):
            boost = partial(_boost, flavor, objective)
            yield Kind(flavor=flavor, name=f"native booster, {objective}", save=boost)


def _boost(flavor: str, objective: str, folder: Path) -> None:
    target = OBJECTIVES[flavor][objective]
    options: dict[str, Any] = {"objective": objective, "nthread": 1}
    if objective.startswith("multi"):
        options["num_class"] = 3
    if flavor == "xgboost":
        save(folder, flavor, xgboost.train(options, xgboost.DMatrix(GAPS, target), 20), GAPS)
        return
    data = lightgbm.Dataset(GAPS, target)
    save(folder, flavor, lightgbm.train({**options, "verbose": -1}, data, 20), GAPS)
