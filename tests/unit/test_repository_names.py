from __future__ import annotations

import pytest

from pipeline.errors import RequestError
from pipeline.odd_names import odd_names
from pipeline.repository_names import check_entry, check_file_name, check_version


@pytest.mark.parametrize("path", ["model.onnx", "warmup-0.bin", "a/b/c", ".hidden", "-x", "config"])
def test_names_that_triton_can_read_are_published(path: str) -> None:
    assert check_file_name(path) == path
    assert odd_names(["fraud/config.pbtxt", f"fraud/3/{path}"]) == []


@pytest.mark.parametrize(
    "path",
    ["", "/x", "x/", "a//b", "a/../b", ".", "a b", "a+b", "naïve", "x\n", "a\\b",
     "manifest.json", "manifest.json.sig", "manifest.json/x"],
)  # fmt: skip
def test_names_that_triton_misreads_are_refused(path: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_file_name(path)
    assert caught.value.hint


@pytest.mark.parametrize("version", [0, -1, 10**18, 2**63])
def test_numbers_that_triton_misreads_are_refused(version: int) -> None:
    with pytest.raises(RequestError, match="cannot be the version"):
        check_version(version)


def test_an_entry_is_checked_whole() -> None:
    check_entry("fraud", 10**18 - 1, ["model.onnx", "a/b"])
    for model, version, files in (
        (".fraud", 1, ["x"]),
        ("fraud", 0, ["x"]),
        ("fraud", 1, ["x", "a b"]),
        ("fraud", 1, ["x" * 600]),
    ):
        with pytest.raises(RequestError):
            check_entry(model, version, files)
