"""How a command ends that is told to end: with its clean-up done."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Cleans up as commands do, with words; the second signal is what a shell sends on its own.
COMMAND = """
import os, signal, sys, time
from pathlib import Path
import click
from pipeline import cli

@cli.tritonpipe.command()
@click.argument("file")
def wait(file):
    try:
        print("waiting", flush=True)
        time.sleep(60)
    finally:
        if os.environ["AGAIN"]:
            signal.raise_signal(signal.SIGHUP)
        print("cleaning up", flush=True)
        print("cleaning up", file=sys.stderr, flush=True)
        Path(file).write_text("done")

cli.main()
"""


def start(tmp_path: Path, terminal: int, *, again: bool = False) -> subprocess.Popen[bytes]:
    # A session leader that opens a terminal gets it as its own, and SIGHUP when it is closed.
    code = f"import os; os.open({os.ttyname(terminal)!r}, os.O_RDWR)\n{COMMAND}"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, "wait", str(tmp_path / "file")],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "AGAIN": "1" if again else ""},
        start_new_session=True,
    )


def test_clean_up_survives_the_end_of_the_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = start(tmp_path, theirs, again=True)
    os.close(theirs)
    assert b"waiting" in os.read(ours, 100)
    os.close(ours)
    assert process.wait(30) == 130
    assert (tmp_path / "file").read_text() == "done"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_clean_up_is_done_and_words_are_said(tmp_path: Path, number: signal.Signals) -> None:
    ours, theirs = pty.openpty()
    process = start(tmp_path, theirs)
    assert b"waiting" in os.read(ours, 100)
    process.send_signal(number)
    assert process.wait(30) == 130
    assert (tmp_path / "file").read_text() == "done"
    told = os.read(ours, 1000).decode()
    assert "cleaning up" in told
    assert "interrupted: what was not proven" in told
    os.close(theirs)
    os.close(ours)


def test_a_command_started_with_nohup_goes_on(tmp_path: Path) -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + COMMAND.replace(
        "time.sleep(60)", "signal.raise_signal(signal.SIGHUP)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "wait", str(tmp_path / "file")],
        env={**os.environ, "AGAIN": ""},
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
