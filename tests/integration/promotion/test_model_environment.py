"""A pickle of another version of scikit-learn, exported with that version, from an index."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import ModelVersion, SourceModel
from pipeline.checks.gate import check_export
from pipeline.errors import ModelError, UnavailableError
from pipeline.flows.inner_process import ModelPackages
from pipeline.flows.model_packages import model_packages
from pipeline.flows.progress import silent
from pipeline.flows.worker import export_in_child
from pipeline.samples import load_samples
from pipeline.settings import Settings
from pipeline.testing.exporter_contract import source_from_folder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

OTHER = "1.5.2"
TRAIN = """
import sys
import mlflow.sklearn, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
random = np.random.default_rng(0)
rows = pd.DataFrame({"age": random.normal(40, 9, 200), "income": random.normal(3, 1, 200)})
columns = ColumnTransformer([("age", StandardScaler(), ["age"])], remainder="passthrough")
model = make_pipeline(columns, LogisticRegression()).fit(rows, rows.age + rows.income > 44)
mlflow.sklearn.save_model(
    model, sys.argv[1], signature=infer_signature(rows), input_example=rows[:5],
    serialization_format="cloudpickle", pip_requirements=[sys.argv[2], "cloudpickle"],
)
np.save(sys.argv[1] + "/expected.npy", model.predict_proba(rows[:5]))
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> ModelPackages:
    """Made once, to train with and to export with."""
    folder = tmp_path_factory.mktemp("wanted")
    (folder / "requirements.txt").write_text(f"scikit-learn=={OTHER}\ncloudpickle\n")
    version = ModelVersion(name="m", version=1, run_id=None, source="", tags={})
    wanted = SourceModel(version=version, path=folder, flavors=("sklearn",), digest="")
    try:
        made = model_packages(wanted, "sklearn", Settings(env="model"), silent)
    except UnavailableError as error:
        pytest.skip(f"no package index: {error}")
    assert made is not None
    return made


@pytest.fixture(scope="module")
def source(packages: ModelPackages, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
    folder = tmp_path_factory.mktemp("logged") / "model"
    python = packages.root / "bin" / "python"
    command = [
        str(python),
        "-I",
        "-W",
        "ignore",
        "-c",
        TRAIN,
        str(folder),
        f"scikit-learn=={OTHER}",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return source_from_folder(folder)


def test_with_our_packages_it_cannot_be_read_and_the_way_out_is_named(
    source: SourceModel, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="cannot be loaded") as raised:
        export_in_child(source, tmp_path)
    assert f"scikit-learn {OTHER} (here " in raised.value.hint
    assert "promote --env model" in raised.value.hint


def test_with_its_own_packages_it_is_exported_and_agrees(
    source: SourceModel, packages: ModelPackages, tmp_path: Path
) -> None:
    exported = export_in_child(source, tmp_path, packages=packages)
    assert exported.onnx.tools["scikit-learn"] == OTHER
    expected = np.load(source.path / "expected.npy")
    found = load_samples(exported.samples).outputs["probabilities"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    report = check_export(exported)
    assert report.ok, report.problems
