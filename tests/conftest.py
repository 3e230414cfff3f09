"""Settings of all tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The empty folders triton/ and mlflow/ at the root would be importable and hide real packages.
sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != ROOT]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-goldens",
        action="store_true",
        help="rewrite the golden files instead of comparing",
    )
