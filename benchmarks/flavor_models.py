"""What the models of ``flavors.py`` are made of: rows, and how they are saved by their users.

Every kind says what becomes of it, so that a change of the exporters shows: nothing, or a part of
the words with which it is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of model.

    Attributes:
        flavor: Of MLflow.
        name: What a user calls it.
        save: Trains it and saves it in a folder that does not exist yet.
        refusal: A part of the words with which it is refused; empty if it must be served.
    """

    flavor: str
    name: str
    save: Callable[[Path], None]
    refusal: str = ""


_RNG: Final = np.random.default_rng(20)
_ROWS: Final = 400
MATRIX: Final = _RNG.normal(size=(_ROWS, 5))
SCORE: Final = MATRIX[:, 0] + MATRIX[:, 1] * MATRIX[:, 2]
TWO: Final = (SCORE > 0).astype(int)
THREE: Final = np.digitize(SCORE, [-0.5, 0.7])
WORDS: Final = np.array(["high", "low", "middle"])[THREE]
GAPS: Final = np.where(_RNG.random(MATRIX.shape) < 0.1, np.nan, MATRIX)
CUSTOMERS: Final = pd.DataFrame(
    {
        "City name": _RNG.choice(["Oslo", "Rome", "Lima"], _ROWS).astype(object),
        "plan": _RNG.choice(["basic", "plus"], _ROWS).astype(object),
        "age (years)": _RNG.integers(18, 90, _ROWS),
        "income": GAPS[:, 1] * 500 + 3000,
        "member": _RNG.integers(0, 2, _ROWS).astype(bool),
    }
)
LEAVES: Final = np.where(CUSTOMERS["age (years)"] + 40 * TWO > 70, "stays", "leaves")
MAILS: Final = pd.DataFrame(
    {"text": [f"{a} offer {b}" for a, b in zip(LEAVES, WORDS, strict=True)]}
)


def save(
    folder: Path, flavor: str, model: Any, inputs: Any, example: Any = None, **options: Any
) -> None:
    """As users do: with signature and example, and without looking for requirements."""
    getattr(mlflow, flavor).save_model(
        model,
        folder,
        signature=infer_signature(inputs),
        input_example=inputs[:6] if example is None else example,
        pip_requirements=[],
        **options,
    )


def fitted(
    flavor: str,
    name: str,
    make: Callable[[], Any],
    inputs: Any,
    target: Any,
    *,
    example: Any = None,
    refusal: str = "",
) -> Kind:
    """An estimator with scikit-learn's methods."""
    form = {"serialization_format": "cloudpickle"} if flavor in ("sklearn", "lightgbm") else {}

    def train(folder: Path) -> None:
        save(folder, flavor, make().fit(inputs, target), inputs, example, **form)

    return Kind(flavor=flavor, name=name, save=train, refusal=refusal)
