"""A model without signature and input example is refused before anything slow is done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifacts import ModelVersion, SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.logged import expect_inputs_logged
from pipeline.exporters.torch_models import is_program

_EXPORT = """
import sys
from pathlib import Path
from pipeline.artifacts import ModelVersion, SourceModel
from pipeline.errors import ModelError
from pipeline.plugins import load_kind

flavor, folder = sys.argv[1:]
version = ModelVersion(name="m", version=1, run_id=None, source="", tags={})
source = SourceModel(version=version, path=Path(folder), flavors=(flavor,), digest="")
try:
    load_kind("exporters", flavor)().export(source, Path(folder))
except ModelError as error:
    print(error.message)
print({"mlflow", "torch", "sklearn", "onnx"} & set(sys.modules))
"""


def source_of(folder: Path, mlmodel: str) -> SourceModel:
    (folder / "MLmodel").write_text(mlmodel)
    version = ModelVersion(name="m", version=1, run_id=None, source="", tags={})
    return SourceModel(version=version, path=folder, flavors=(), digest="")


@pytest.mark.parametrize(
    "flavor", ["sklearn", "xgboost", "lightgbm", "catboost", "pytorch", "transformers"]
)
def test_it_is_told_before_any_library_is_imported(tmp_path: Path, flavor: str) -> None:
    source_of(tmp_path, f"flavors: {{ {flavor}: {{}} }}")
    done = subprocess.run(
        [sys.executable, "-P", "-c", _EXPORT, flavor, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "m/1 was logged without signature and input example: nothing says what its inputs are",
        "set()",
    ]


@pytest.mark.parametrize("signature", ["", "signature: null", "signature: { outputs: '[]' }"])
def test_a_signature_without_inputs_says_nothing_of_them(tmp_path: Path, signature: str) -> None:
    with pytest.raises(ModelError, match="nothing says what its inputs are"):
        expect_inputs_logged(source_of(tmp_path, f"flavors: {{}}\n{signature}"))


@pytest.mark.parametrize(
    "said", ["signature: { inputs: '[]' }", "saved_input_example_info: { artifact_path: a }"]
)
def test_one_of_them_is_enough(tmp_path: Path, said: str) -> None:
    expect_inputs_logged(source_of(tmp_path, f"flavors: {{}}\n{said}"))


def test_an_exported_program_may_carry_its_inputs(tmp_path: Path) -> None:
    source = source_of(tmp_path, "flavors: { pytorch: {} }")
    assert not is_program(source)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model.pt2").write_bytes(b"")
    assert is_program(source)
