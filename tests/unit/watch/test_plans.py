"""A watcher goes by what its file says now, and by what it said before while it is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.configuration import load_configuration
from pipeline.errors import SettingsError
from pipeline.settings import Settings
from pipeline.watch.events import Event
from pipeline.watch.planning import planned
from pipeline.watch.plans import Plans


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "t.toml"
    file.write_text('[models."a"]\nmax_batch_size = 2\n')
    return file


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def plans(file: Path, told: list[Event]) -> Plans:
    return Plans(lambda: planned(load_configuration(Settings(), file)), file, told.append)


@pytest.fixture
def batch(plans: Plans) -> Callable[[], int]:
    """What it says at this moment."""
    return lambda: plans().rules[0].settings.max_batch_size


def test_what_the_file_says_now_counts(
    file: Path, batch: Callable[[], int], told: list[Event]
) -> None:
    assert batch() == 2
    file.write_text('[models."a"]\nmax_batch_size = 16\n')
    assert [batch(), batch()] == [16, 16]
    assert ["read again" in event.message for event in told] == [True]


def test_while_it_is_wrong_or_gone_what_it_said_before_holds(
    file: Path, batch: Callable[[], int], told: list[Event]
) -> None:
    file.write_text('[models."a"]\nmax_batch_size = "many"\n')
    assert [batch(), batch()] == [2, 2]
    file.unlink()
    assert [batch(), batch()] == [2, 2]
    file.write_text('[models."a"]\nmax_batch_size = 16\n')
    assert batch() == 16
    wrong, gone, right = (event.message for event in told)
    assert "max_batch_size" in wrong
    assert "is gone" in gone
    assert "read again" in right


def test_what_is_fixed_at_the_start_is_told(
    file: Path, batch: Callable[[], int], told: list[Event]
) -> None:
    file.write_text('[defaults]\nrepository = "s3://other/place"\n[models."a"]\n')
    assert batch() == 64
    assert "start anew for a change of repository" in told[0].message


def test_a_file_that_is_wrong_at_the_start_is_an_error(file: Path) -> None:
    file.write_text("[")
    with pytest.raises(SettingsError):
        Plans(lambda: planned(load_configuration(Settings(), file)), file, print)
