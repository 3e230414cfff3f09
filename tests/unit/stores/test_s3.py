from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.errors import DependencyError, SettingsError
from pipeline.stores import open_store


@pytest.mark.parametrize(
    "url",
    [
        *(
            "models",
            "./models",
            "file:models",
            "http://models/x",
            "s3://Models/x",
            "s3://my_bucket/x",
            "s3://models/a b",
        ),
        *("s3://", "s3://models/../x", "s3://models/./x", "s3://models/a/..", "s3://models/../"),
    ],
)
def test_urls_that_triton_cannot_read_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="not a model repository"):
        open_store(url)


@pytest.mark.parametrize("url", ["s3://models", "s3://models/a..b/.c/...", "s3://models/x/"])
def test_dots_within_a_name_are_allowed(url: str) -> None:
    assert open_store(url).url == url.rstrip("/")


def test_a_profile_needs_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_PROFILE", "team")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(DependencyError, match="'team', and boto3") as caught:
        open_store("s3://models")
    assert "pip install boto3" in caught.value.hint


def test_keys_go_before_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_PROFILE", "team")
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert open_store("s3://models").url == "s3://models"


def test_certificates_that_cannot_be_read_are_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(SettingsError, match="No such file"):
        open_store("s3://models")
