from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.errors import DependencyError, SettingsError
from pipeline.stack.interpreter import (
    Interpreter,
    probe_interpreter,
    require_platform,
    require_servers_can_run,
    require_venv,
)


def interpreter(
    version: str = "3.11.7", *, has_venv: bool = True, library: str = "libpython3.11.so.1.0"
) -> Interpreter:
    return Interpreter(version=version, prefix="/usr", has_venv=has_venv, library=library)


def test_this_python_tells_about_itself() -> None:
    found = probe_interpreter(Path(sys.executable))
    assert found.version == ".".join(map(str, sys.version_info[:3]))
    assert found.prefix == sys.base_prefix


@pytest.mark.parametrize("program", ["/bin/false", "/bin/cat", "/nowhere/python"])
def test_what_is_not_a_python_is_a_wrong_setting(program: str) -> None:
    with pytest.raises(SettingsError, match=f"{program} does not run as a Python"):
        probe_interpreter(Path(program))


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "aarch64")])
def test_triton_exists_for_one_platform(system: str, machine: str) -> None:
    require_platform("linux", "x86_64")
    with pytest.raises(DependencyError, match=f"this is {system} on {machine}"):
        require_platform(system, machine)


def test_the_missing_library_is_named_with_its_package() -> None:
    require_servers_can_run(interpreter())
    with pytest.raises(DependencyError, match=r"needs libpython3\.12\.so\.1\.0") as caught:
        require_servers_can_run(interpreter("3.12.3", library=""))
    assert "apt-get install libpython3.12 " in caught.value.hint


@pytest.mark.parametrize("version", ["3.10.13", "3.13.0"])
def test_a_python_without_wheels_is_refused(version: str) -> None:
    with pytest.raises(DependencyError, match=f"3.11 or 3.12, found {version}"):
        require_servers_can_run(interpreter(version))


def test_a_python_without_venv_is_refused_with_its_package() -> None:
    require_venv(interpreter())
    with pytest.raises(DependencyError, match="ensurepip") as caught:
        require_venv(interpreter(has_venv=False))
    assert caught.value.hint == "sudo apt-get install python3.11-venv"
