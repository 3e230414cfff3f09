"""Laws of locks on files, between real processes."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from pipeline.errors import ConflictError, SettingsError
from pipeline.locks.choice import open_locks
from pipeline.locks.files import FileLocks
from pipeline.stores.objects import ObjectStore

HOLDER = """
import sys, time
from pathlib import Path
from pipeline.locks.files import FileLocks
with FileLocks(Path(sys.argv[1]), repository="s3://r").hold("m", seconds=0, tell=print):
    print("held", flush=True)
    time.sleep(60)
"""


def locks(folder: Path, repository: str = "s3://r") -> FileLocks:
    return FileLocks(folder, repository=repository)


def deaf(_text: str) -> None:
    pass


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock of model m."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_publisher_is_told_who_holds_it_and_gives_up(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    told: list[str] = []
    try:
        with (
            pytest.raises(ConflictError, match=f"process {holder.pid}, still after 0 s"),
            locks(tmp_path).hold("m", seconds=0.3, tell=told.append),
        ):
            pytest.fail("two hold it")
        with locks(tmp_path).hold("other", seconds=0, tell=deaf) as held:
            held.require_held()
    finally:
        holder.kill()
        holder.communicate()
    assert [text.split(", ")[-1] for text in told] == [f"process {holder.pid}"]


def test_a_holder_that_is_killed_lets_go_at_once(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    with locks(tmp_path).hold("m", seconds=0, tell=deaf):
        pass


def test_of_many_threads_one_is_inside(tmp_path: Path) -> None:
    inside, most = 0, 0

    def publish() -> None:
        nonlocal inside, most
        with locks(tmp_path).hold("m", seconds=30, tell=deaf):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=publish) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        locks(tmp_path).hold("m", seconds=0, tell=deaf),
    ):
        raise ZeroDivisionError
    with locks(tmp_path).hold("m", seconds=0, tell=deaf):
        pass


def test_a_folder_that_cannot_be_used_is_a_setting_to_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(SettingsError, match="cannot keep locks in"),
        locks(tmp_path / "file").hold("m", seconds=0, tell=deaf),
    ):
        pass


def test_repositories_that_share_a_folder_do_not_wait_for_each_other(tmp_path: Path) -> None:
    with (
        locks(tmp_path, "s3://a/r").hold("m", seconds=0, tell=deaf),
        locks(tmp_path, "s3://b/r").hold("m", seconds=0, tell=deaf),
        pytest.raises(ConflictError),
        locks(tmp_path, "s3://a/r/").hold("m", seconds=0, tell=deaf),
    ):
        pytest.fail("two hold it")


def test_a_file_system_without_locks_is_a_setting_to_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    # No file system of this kind can be mounted here.
    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(SettingsError, match="No locks available") as caught,
        locks(tmp_path).hold("m", seconds=0, tell=deaf),
    ):
        pytest.fail("held")
    assert "TRITONPIPE_LOCK" in caught.value.hint


def test_the_home_of_nobody_is_a_setting_to_fix() -> None:
    records = ObjectStore("memory://records", MemoryStore())
    with pytest.raises(SettingsError, match="no such home directory"):
        open_locks("~nosuchuser/locks", repository="s3://r", records=records)
