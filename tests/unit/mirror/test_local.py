"""The folder of a mirror is its own, and only its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ConflictError, SettingsError
from pipeline.mirror.files import exchange
from pipeline.mirror.local import LocalRepository
from pipeline.testing.lying_store import SimulatedPublisher
from pipeline.testing.mirrored import InlineMirror


def test_a_folder_with_something_else_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "fraud").mkdir()
    (tmp_path / "fraud" / "config.pbtxt").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingsError, match="not empty"):
        LocalRepository(tmp_path).open("s3://a/b")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_volume_that_was_just_made_is_taken(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    LocalRepository(tmp_path).open("s3://a/b")


def test_a_folder_mirrors_one_repository_at_a_time_by_one_process(tmp_path: Path) -> None:
    first = LocalRepository(tmp_path / "m")
    first.open("s3://a/b")
    with pytest.raises(ConflictError, match="another mirror"):
        LocalRepository(tmp_path / "m").open("s3://a/b")
    first.close()
    with pytest.raises(SettingsError, match="mirrors s3://a/b, not s3://a/c"):
        LocalRepository(tmp_path / "m").open("s3://a/c")
    LocalRepository(tmp_path / "m").open("s3://a/b")


def test_a_folder_that_cannot_be_made_is_a_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot use"):
        LocalRepository(tmp_path / "file" / "m").open("s3://a/b")


def test_everything_is_readable_by_the_user_of_triton(
    start: Callable[..., InlineMirror], publisher: SimulatedPublisher, tmp_path: Path
) -> None:
    publisher.publish("m", 1)
    start().look()
    for path in (tmp_path / "mirror" / "repository").rglob("*"):
        assert path.stat().st_mode & 0o044 == 0o044


def test_folders_are_exchanged_or_nothing_happens(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "x").touch()
    with pytest.raises(FileNotFoundError):
        exchange(one, other)
    assert (one / "x").exists()
    other.mkdir()
    exchange(one, other)
    assert (other / "x").exists()
    assert list(one.iterdir()) == []
