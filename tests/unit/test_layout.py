"""What the tree promises: thin start, importable core, no Python in the folders of images."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = {
    "mlflow", "torch", "onnx", "onnxruntime", "numpy", "tritonclient", "obstore", "pydantic",
    "rich", "sklearn", "psutil", "grpc",
}  # fmt: skip


@pytest.mark.parametrize("module", ["pipeline", "pipeline.cli"])
def test_starting_imports_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert HEAVY.isdisjoint(done.stdout.split())


def test_every_module_but_contracts_and_the_demo_is_importable_with_the_core_alone() -> None:
    code = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {
            "torch", "sklearn", "skl2onnx", "pandas", "onnxscript", "pytest", "hypothesis",
            "model_signing", "cryptography", "psycopg", "boto3", "xgboost", "lightgbm", "catboost",
            "transformers", "tokenizers",
        }:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import pipeline
for module in pkgutil.walk_packages(pipeline.__path__, "pipeline."):
    if module.name != "pipeline.__main__":
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError:
            print(module.name)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        "pipeline.demo.science",
        "pipeline.testing.exporter_contract",
        "pipeline.testing.store_contract",
    ]


def test_folders_of_images_hold_no_python() -> None:
    for name in ("triton", "mlflow"):
        assert not list((ROOT / name).rglob("*.py")), f"{name}/ would be importable"
    for module in ROOT.joinpath("model_repository").rglob("*.py"):
        assert module.parent.name.isdigit(), f"{module} would be importable"


def test_version_is_the_same_everywhere() -> None:
    from pipeline import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__


def test_files_stay_readable() -> None:
    sizes = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines())
        for path in ROOT.joinpath("pipeline").rglob("*.py")
    }
    assert {path: size for path, size in sizes.items() if size > 300} == {}
