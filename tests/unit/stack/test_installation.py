from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline.errors import DependencyError
from pipeline.stack.installation import install_servers

FAKE_PYTHON = """#!/bin/sh
# python -m venv ROOT, and ROOT/bin/python -m pip install ...
if [ "$2" = venv ]; then mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && exit 0; fi
{pip}
"""


class Listener:
    def __init__(self) -> None:
        self.said: list[str] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[Callable[[str], None]]:
        self.said.append(stage)
        yield self.said.append


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def python(folder: Path, pip: str) -> Path:
    path = folder / "python"
    path.write_text(FAKE_PYTHON.format(pip=pip))
    path.chmod(0o755)
    return path


def test_progress_counts_packages(tmp_path: Path, lock: int) -> None:
    fake = python(tmp_path, "echo Collecting a==1; echo Collecting b==2 '(from a)'")
    listener = Listener()
    install_servers(fake, tmp_path / "root", ["a==1", "b==2"], listener, lock=lock)
    assert listener.said == [
        "server environment",
        str(tmp_path / "root"),
        "server packages",
        "1 of 2: a",
        "2 of 2: b",
        "2 packages",
    ]


def test_a_failure_ends_with_what_pip_said(tmp_path: Path, lock: int) -> None:
    fake = python(tmp_path, "echo ERROR: no matching distribution >&2; exit 1")
    with pytest.raises(DependencyError, match="ERROR: no matching distribution"):
        install_servers(fake, tmp_path / "root", ["a==1"], Listener(), lock=lock)


def test_pip_does_not_outlive_an_interrupt(tmp_path: Path, lock: int) -> None:
    fake = python(tmp_path, "echo Collecting a==1; exec sleep 60")

    class Interrupting(Listener):
        @contextmanager
        def __call__(self, stage: str) -> Iterator[Callable[[str], None]]:
            def describe(text: str) -> None:
                if text.startswith("1 of"):
                    raise KeyboardInterrupt

            yield describe

    with pytest.raises(KeyboardInterrupt):
        install_servers(fake, tmp_path / "root", ["a==1"], Interrupting(), lock=lock)
    assert psutil.Process().children(recursive=True) == []


def test_variables_of_python_do_not_reach_pip(
    tmp_path: Path, lock: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    fake = python(tmp_path, f'echo "$PYTHONPATH" > {tmp_path}/seen')
    install_servers(fake, tmp_path / "root", [], Listener(), lock=lock)
    assert (tmp_path / "seen").read_text() == "\n"
