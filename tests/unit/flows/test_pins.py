"""Versions of the training against versions of here."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline.flows.pins import Difference, described, differences, wheel_of


def test_versions_that_agree_differ_in_nothing(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        f"mlflow==1.0\nnumpy=={version('numpy')}\nnot-installed==1.0\nonnx>=1\n# onnx==0.1\n"
        f"PyYAML=={version('pyyaml')}+local ; python_version >= '3.8'\n"
    )
    (tmp_path / "python_env.yaml").write_text(f"python: {platform.python_version()}\nbuild: []\n")
    assert differences(tmp_path) == ()


def test_versions_that_differ_are_found_under_every_spelling(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("Num_Py == 0.1\nnumpy==0.1\nonnx[reference]==1.0.0")
    (tmp_path / "python_env.yaml").write_text("python: '3.6.9'\n")
    found = differences(tmp_path)
    assert [(d.package, d.trained) for d in found] == [
        ("Python", "3.6.9"),
        ("numpy", "0.1"),
        ("onnx", "1.0.0"),
    ]
    assert f"numpy 0.1 (here {version('numpy')})" in described(found)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe==\x00", b"==\n== 1\n-r /etc/passwd\n"])
def test_whatever_the_file_holds_nothing_is_raised(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "requirements.txt").write_bytes(content)
    assert differences(tmp_path) == ()
    assert differences(tmp_path / "nothing") == ()


@pytest.mark.parametrize(
    ("trained", "here", "is_major"),
    [("1.2", "2.0", True), ("1.2", "1.9", False), ("0.4.1", "0.5", True), ("0.4", "0.4.9", False)],
)
def test_after_zero_the_second_number_promises(trained: str, here: str, is_major: bool) -> None:
    assert Difference(package="p", trained=trained, here=here).is_major is is_major


def test_what_to_install_for_a_module(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("scikit-learn==1.2.2\nxgboost==2.0.3")
    assert wheel_of("sklearn.tree", tmp_path) == "scikit-learn==1.2.2"
    assert wheel_of("xgboost", tmp_path) == "xgboost==2.0.3"
    assert wheel_of("PIL", tmp_path) == "pillow"
    assert wheel_of("ours", tmp_path) == ""
