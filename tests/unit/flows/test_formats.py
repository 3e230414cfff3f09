"""Which models are code: told from flavor and files, never by loading anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.flows.formats import runs_code


@pytest.mark.parametrize(
    ("flavor", "files", "is_code"),
    [
        ("onnx", ["model.onnx"], False),
        ("onnx", ["model.onnx", "model.pkl"], False),
        ("onnx", ["code/helper.py"], False),
        ("xgboost", ["model.ubj"], False),
        ("xgboost", ["model.pkl"], False),
        ("catboost", ["model.cb"], False),
        ("lightgbm", ["model.lgb"], False),
        ("lightgbm", ["model.pkl"], True),
        ("lightgbm", ["model.skops"], True),
        ("pytorch", ["data/model.pt2"], False),
        ("pytorch", ["data/model.pth"], True),
        ("pytorch", ["data/model.pt2", "data/model.PTH"], True),
        ("keras", ["data/model.keras"], False),
        ("keras", ["data/model.h5"], True),
        ("tensorflow", ["data/model.keras", "data/custom_objects.cloudpickle"], True),
        ("transformers", ["model/model.safetensors", "model/config.json"], False),
        ("transformers", ["model/pytorch_model.bin"], True),
        ("sklearn", ["model.skops"], True),
        ("sklearn", ["model.onnx"], True),
        ("theirs", ["anything"], True),
        ("pytorch", [], True),
    ],
)
def test_what_runs_code(tmp_path: Path, flavor: str, files: list[str], is_code: bool) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert runs_code(tmp_path, flavor) is is_code
