from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.flows.progress import silent
from pipeline.stack.credentials import credentials_file, s3_key, webhook_key
from pipeline.stack.ports import Ports
from pipeline.stack.state import (
    Mirroring,
    StackOptions,
    StateDirectory,
    default_state_directory,
    write_private,
)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    state = StateDirectory(tmp_path / "state")
    state.create()
    return state


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TRITONPIPE_STATE_DIR": "/a", "XDG_STATE_HOME": "/b"}, Path("/a")),
        ({"XDG_STATE_HOME": "/b"}, Path("/b/tritonpipe")),
        ({}, Path.home() / ".local/state/tritonpipe"),
    ],
)
def test_default_directory(environment: dict[str, str], expected: Path) -> None:
    assert default_state_directory(environment) == expected


def test_it_is_for_its_owner_alone_whatever_the_umask_and_the_folder_were(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    old = os.umask(0)
    try:
        state = StateDirectory(tmp_path / "state")
        state.create()
        s3_key(state)
        credentials_file(state)
        webhook_key(state)
    finally:
        os.umask(old)
    assert state.path.stat().st_mode & 0o777 == 0o700
    secrets = list((state.path / "secrets").iterdir())
    assert len(secrets) == 3
    assert {path.stat().st_mode & 0o777 for path in secrets} == {0o600}


def test_a_folder_with_other_things_is_neither_used_nor_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    state = StateDirectory(tmp_path)
    with pytest.raises(SettingsError, match="not empty and not the state of a stack"):
        state.create()
    with pytest.raises(SettingsError, match="not the state of a stack"):
        state.delete()
    assert (tmp_path / "thesis.tex").exists()


def test_deleting_follows_no_link(state: StateDirectory, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").touch()
    (state.path / "link").symlink_to(tmp_path / "outside")
    state.delete()
    assert not state.path.exists()
    assert (tmp_path / "outside" / "kept").exists()


def test_a_file_in_the_way_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot use"):
        StateDirectory(tmp_path / "file").create()


def test_options_are_remembered(state: StateDirectory) -> None:
    assert state.options() == StackOptions()
    options = StackOptions(
        ports=Ports(s3=9999),
        poll_seconds=7,
        mirroring=Mirroring.EXPLICIT,
        python=Path("/usr/bin/python3"),
    )
    state.remember(options)
    assert StateDirectory(state.path).options() == options


def test_one_directory_however_it_is_spelled(state: StateDirectory, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(state.path)
    for spelling in (tmp_path / "link", state.path / "..." / ".." / "..." / ".."):
        assert StateDirectory(spelling).path == state.path


def test_secrets_are_made_once(state: StateDirectory) -> None:
    assert s3_key(state) == s3_key(StateDirectory(state.path))
    assert webhook_key(state) == webhook_key(StateDirectory(state.path))


def test_the_secret_key_is_not_shown_by_accident(state: StateDirectory) -> None:
    assert s3_key(state).secret_key not in repr(s3_key(state))


def test_a_private_file_is_replaced_and_was_never_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "secret"
    write_private(path, "1")
    inode = path.stat().st_ino
    write_private(path, "2")
    assert path.read_text() == "2"
    assert path.stat().st_ino != inode
    assert list(path.parent.iterdir()) == [path]


def test_only_one_command_at_a_time(state: StateDirectory) -> None:
    order: list[str] = []
    inside = threading.Event()

    @contextmanager
    def waiting(_stage: str) -> Iterator[Callable[[str], None]]:
        order.append("second waits")
        inside.set()
        yield lambda _text: None

    def second() -> None:
        with StateDirectory(state.path).locked(waiting):
            order.append("second")

    thread = threading.Thread(target=second)
    with state.locked(silent):
        thread.start()
        assert inside.wait(10)
        order.append("first is over")
    thread.join(10)
    assert order == ["second waits", "first is over", "second"]


def test_who_waits_for_a_deleted_directory_gets_a_lock_that_others_see(
    state: StateDirectory,
) -> None:
    entered = threading.Event()
    leave = threading.Event()
    waits = threading.Event()

    @contextmanager
    def waiting(_stage: str) -> Iterator[Callable[[str], None]]:
        waits.set()
        yield lambda _text: None

    def second() -> None:
        with StateDirectory(state.path).locked(waiting):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=second)
    with state.locked(silent):
        thread.start()
        assert waits.wait(10)
        state.delete()
        state.create()
    assert entered.wait(10)
    assert state._try_lock() is None
    leave.set()
    thread.join(10)
