"""What a data scientist does: train, log with signature and example, register.

Nothing here knows of tritonpipe or Triton; it is ordinary MLflow code.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Final

import mlflow
import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from pipeline.samples import Array

CHURN: Final = "demo-churn"
DIGITS: Final = "demo-digits"
_TEXT_COLUMNS: Final = ["city", "plan"]
_NUMBER_COLUMNS: Final = ["age", "monthly_charge", "support_calls"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """A registered version, with what its own model answers to some requests.

    Attributes:
        model: Registered model.
        version: Its new version.
        accuracy: On rows that were not trained on.
        inputs: Request tensors of a few rows, as an application would send them.
        outputs: The model's own predictions on those rows.
    """

    model: str
    version: int
    accuracy: float
    inputs: dict[str, Array]
    outputs: dict[str, Array]


def customers(rows: int = 2000, seed: int = 7) -> tuple[pd.DataFrame, Array]:
    """Invented customers with text and number columns, and whether each one left."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "city": rng.choice(["Berlin", "Lyon", "Porto", "Turin"], rows),
            "plan": rng.choice(["basic", "plus", "family"], rows),
            "age": rng.integers(18, 90, rows).astype(np.float64),
            "monthly_charge": rng.normal(40, 12, rows).round(2),
            "support_calls": rng.poisson(1.5, rows).astype(np.float64),
        }
    )
    risk = 0.06 * (frame["monthly_charge"] - 40) + 0.8 * (frame["support_calls"] - 1.5)
    risk += np.where(frame["plan"] == "basic", 0.7, -0.4)
    return frame, (risk + rng.normal(0, 1, rows) > 0).astype(np.int64).to_numpy()


def train_churn(*, with_forest: bool = False) -> Trained:
    """Train and register a scikit-learn pipeline on mixed columns.

    Args:
        with_forest: Use a random forest, which needs no scaling, instead of a logistic regression.
    """
    frame, left = customers()
    train, test, train_left, test_left = train_test_split(frame, left, random_state=0)
    numbers = "passthrough" if with_forest else StandardScaler()
    columns = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore"), _TEXT_COLUMNS),
            ("numbers", numbers, _NUMBER_COLUMNS),
        ]
    )
    forest = RandomForestClassifier(n_estimators=50, max_depth=8, random_state=0)
    model = make_pipeline(columns, forest if with_forest else LogisticRegression(max_iter=500))
    model.fit(train, train_left)
    accuracy = float(model.score(test, test_left))
    example = test.head(8)
    with mlflow_run(type(model[-1]).__name__):
        mlflow.log_params({"estimator": type(model[-1]).__name__, "rows": len(train)})
        mlflow.log_metric("accuracy", accuracy)
        signature = mlflow.models.infer_signature(example, model.predict(example))
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=signature,
            input_example=example,
            serialization_format="cloudpickle",
            pip_requirements=[f"scikit-learn=={sklearn.__version__}"],
            registered_model_name=CHURN,
        )
    inputs: dict[str, Array] = {}
    for name in frame.columns:
        column = example[name].to_numpy()
        kind = np.object_ if name in _TEXT_COLUMNS else np.float32
        inputs[name] = column.astype(kind).reshape(-1, 1)
    outputs = {
        "label": model.predict(example),
        "probabilities": model.predict_proba(example).astype(np.float32),
    }
    return Trained(
        model=CHURN,
        version=int(info.registered_model_version),
        accuracy=accuracy,
        inputs=inputs,
        outputs=outputs,
    )


class DigitsNet(torch.nn.Module):
    """A small convolutional network for 8 by 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.ReLU(),
        )
        self.classify = torch.nn.Linear(32 * 4 * 4, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores of the ten digits for a batch of images ``[N, 1, 8, 8]``."""
        return self.classify(self.features(image).flatten(1))


def train_digits(epochs: int = 15) -> Trained:
    """Train and register a PyTorch network on the digits that scikit-learn ships."""
    torch.manual_seed(0)
    data = load_digits()
    images = (data.images[:, None] / 16.0).astype(np.float32)
    train, test, train_digit, test_digit = train_test_split(images, data.target, random_state=0)
    model = DigitsNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    x, y = torch.from_numpy(train), torch.from_numpy(train_digit)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    model.eval()
    example = test[:8]
    with torch.no_grad():
        accuracy = float((model(torch.from_numpy(test)).argmax(1).numpy() == test_digit).mean())
        scores = model(torch.from_numpy(example)).numpy()
    with mlflow_run("DigitsNet"):
        mlflow.log_params({"epochs": epochs})
        mlflow.log_metric("accuracy", accuracy)
        info = mlflow.pytorch.log_model(
            model,
            name="model",
            signature=mlflow.models.infer_signature(example, scores),
            input_example=example,
            pip_requirements=[f"torch=={torch.__version__}"],
            registered_model_name=DIGITS,
        )
    return Trained(
        model=DIGITS,
        version=int(info.registered_model_version),
        accuracy=accuracy,
        inputs={"image": example},
        outputs={"output": scores},
    )


@contextmanager
def mlflow_run(name: str) -> Iterator[None]:
    """A run without MLflow's advice to the author and its links in the demo's output."""
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    quiet = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(quiet), redirect_stderr(quiet):
        warnings.simplefilter("ignore")
        with mlflow.start_run(run_name=name):
            yield
