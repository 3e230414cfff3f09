"""Exporters convert real models with the real libraries, and talk to no server.

Warnings of third parties that their own releases have to answer for are no errors; ours are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest_socket import disable_socket, enable_socket

from pipeline.artifacts import OnnxModel, SourceModel
from pipeline.exporters import Exporter
from pipeline.onnx_graph import OnnxSession

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


@pytest.fixture(autouse=True)
def _no_sockets() -> Iterator[None]:
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("TRITONPIPE_", "MLFLOW_", "AWS_")):
            monkeypatch.delenv(name)


def pytest_itemcollected(item: pytest.Item) -> None:
    for warning in THIRD_PARTY_WARNINGS:
        item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture
def expect_exact(tmp_path: Path) -> Callable[[Exporter, SourceModel, Any], OnnxModel]:
    """Export a model, ask it about many rows, and accept no row that differs.

    The tolerance is that of adding 32-bit numbers, far below that of a promotion: a value on the
    wrong side of a split shows.
    """

    def run(exporter: Exporter, source: SourceModel, rows: Any) -> OnnxModel:
        destination = tmp_path / f"exported-{len(list(tmp_path.iterdir()))}"
        destination.mkdir()
        exported = exporter.export(source, destination)
        asked = exported.ask(rows)
        found = OnnxSession(exported.onnx.file, is_optimised=True).run(asked.inputs)
        assert set(found) == set(asked.outputs)
        for name, expected in asked.outputs.items():
            assert (found[name].shape, found[name].dtype) == (expected.shape, expected.dtype)
            if expected.dtype.kind == "f":
                assert len(np.unique(expected, axis=0)) > 1
                np.testing.assert_allclose(found[name], expected, rtol=2e-6, atol=2e-6)
            else:
                np.testing.assert_array_equal(found[name], expected)
        return exported.onnx

    return run
