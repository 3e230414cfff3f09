"""Warnings of third parties that their own releases have to answer for; ours stay errors."""

from __future__ import annotations

import pytest

THIRD_PARTY_WARNINGS = (
    # mlflow.pyfunc looks at its own type hints when it is imported.
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
    # MLflow's schema inference warns about every integer column.
    "ignore:.*contains integer column:UserWarning",
    # MLflow compares column labels with a range, which pandas 3 deprecates.
    "ignore:Operation with range is deprecated",
    # torch.export, called by MLflow, says so of every LSTM.
    "ignore:The tensor attributes self.lstm:UserWarning",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    for warning in THIRD_PARTY_WARNINGS:
        item.add_marker(pytest.mark.filterwarnings(warning))
