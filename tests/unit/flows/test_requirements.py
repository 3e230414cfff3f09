from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.flows.requirements import Requirements, requirements_of


def logged(folder: Path, *lines: str, python: str = "3.11.7", **files: str) -> Path:
    (folder / "requirements.txt").write_text("\n".join(lines), encoding="utf-8")
    (folder / "python_env.yaml").write_text(
        f"python: {python}\ndependencies:\n- -r requirements.txt"
    )
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def test_packages_are_taken_with_their_versions_in_one_order(tmp_path: Path) -> None:
    first = requirements_of(logged(tmp_path, "numpy==2.4.6", "pandas<4", "# words", "", "attrs"))
    again = requirements_of(logged(tmp_path, "attrs  # why", "pandas <4", "numpy == 2.4.6"))
    assert first == again
    assert first == Requirements(
        python="3.11", packages=("attrs", "mlflow-skinny", "numpy==2.4.6", "pandas<4")
    )


@pytest.mark.parametrize("line", ["mlflow==3.18.0", "mlflow-skinny==3.1", "MLflow[gateway]>=3.2"])
def test_mlflow_is_relaxed_to_what_predicting_needs(tmp_path: Path, line: str) -> None:
    found = requirements_of(logged(tmp_path, line, "numpy", "pandas"))
    assert found.packages == ("mlflow-skinny<4,>=3", "numpy", "pandas")


def test_what_loading_needs_is_there_although_nobody_lists_it(tmp_path: Path) -> None:
    assert requirements_of(tmp_path).packages == ("mlflow-skinny", "numpy", "pandas")


def test_further_packages_stand_beside_those_of_the_model(tmp_path: Path) -> None:
    found = requirements_of(logged(tmp_path, "numpy<3"), extra=("mlflow-skinny>=3.17", "onnx"))
    assert found.packages == ("mlflow-skinny>=3.17", "numpy<3", "onnx", "pandas")


def test_the_label_of_a_build_names_no_other_build(tmp_path: Path) -> None:
    packages = requirements_of(logged(tmp_path, "torch==2.9.0+cpu")).packages
    assert "torch==2.9.0" in packages


def test_constraints_bound_and_ask_for_nothing(tmp_path: Path) -> None:
    model = logged(tmp_path, "numpy", "-c bounds.txt", bounds="scipy<2\nmlflow<4\n")
    found = requirements_of(model)
    assert found.constraints == ("scipy<2",)
    assert not any(line.startswith("scipy") for line in found.packages)


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://example.org/simple",
        "--extra-index-url=https://example.org/simple",
        "-e .",
        "-r ../../etc/passwd",
        "-c ../bounds.txt",
        "./code/own-1.0-py3-none-any.whl",
        "https://example.org/own-1.0-py3-none-any.whl",
        "own @ https://example.org/own-1.0-py3-none-any.whl",
        "own @ file:///etc/passwd",
        "git+https://example.org/own.git",
        "numpy; import os",
    ],
)
def test_the_author_chooses_neither_addresses_nor_options(tmp_path: Path, line: str) -> None:
    with pytest.raises(ModelError) as raised:
        requirements_of(logged(tmp_path, "numpy", line))
    assert line in raised.value.message
    assert "PIP_INDEX_URL" in raised.value.hint
