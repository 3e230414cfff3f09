"""The secret shared with MLflow: made once, and the same for everybody who asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.cli.secret_file import shared_secret
from pipeline.errors import SettingsError


def test_it_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    made = shared_secret(file)
    assert len(made) >= 32
    assert shared_secret(file) == made
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_a_secret_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("\n")
    with pytest.raises(SettingsError, match="holds no secret"):
        shared_secret(empty)
    with pytest.raises(SettingsError, match="cannot be kept"):
        shared_secret(tmp_path / "missing" / "secret")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="cannot be read"):
        shared_secret(tmp_path / "binary")
