"""Fills a new virtual environment with the servers, and says how far it is.

pip tells its progress in lines for people; only counts of known beginnings are taken from them, so
that another wording costs the counter and not the installation.
"""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipeline.errors import DependencyError
from pipeline.flows.progress import Describe, Progress

_TAIL_LINES: Final = 15


def install_servers(
    python: Path, root: Path, requirements: Sequence[str], progress: Progress, *, lock: int
) -> None:
    """Make the environment ``root`` and install ``requirements`` into it, and nothing else.

    An interrupted installation leaves no running pip; what it left in ``root`` is the caller's.

    Args:
        python: The Python to make the environment with.
        root: The environment; must not exist.
        requirements: What to install.
        progress: Told the stages.
        lock: Descriptor of a held lock. pip keeps it open, so that the lock outlives this process
            if it is killed, for as long as pip still writes.

    Raises:
        DependencyError: The environment cannot be made or a package cannot be installed; the end
            of the output is part of the message.
    """
    with progress("server environment") as describe:
        _run([str(python), "-m", "venv", str(root)], describe, 0, lock)
        describe(str(root))
    pip = [str(root / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    with progress("server packages") as describe:
        _run(
            [*pip, "--no-input", "--progress-bar", "off", *requirements],
            describe,
            len(requirements),
            lock,
        )
        describe(f"{len(requirements)} packages")


def _run(command: Sequence[str], describe: Describe, expected: int, lock: int) -> None:
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    collected = 0
    with _ended_with_us(command, lock) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line.rstrip())
            if line.startswith("Collecting "):
                collected += 1
                describe(f"{collected} of {expected}: {line.split()[1].partition('==')[0]}")
            elif line.startswith("Installing "):
                describe(f"writing {expected} packages")
    if process.returncode:
        raise DependencyError(
            f"the servers could not be installed ({' '.join(command[1:4])} failed):\n"
            + "\n".join(tail),
            hint="check the network, the package index that pip uses and the free disk space",
        )


@contextmanager
def _ended_with_us(command: Sequence[str], lock: int) -> Iterator[subprocess.Popen[str]]:
    # A PYTHONPATH or PYTHONHOME of this shell would mix foreign packages into the environment.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        pass_fds=(lock,),
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise
