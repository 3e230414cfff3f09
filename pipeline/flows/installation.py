"""Installs wheels into a new virtual environment, and makes what it holds the same everywhere.

Guarantees: nothing but wheels is installed, so that no package runs code while it is; pip is ended
with all that it started when its time is over; the compiled files and records that are left do not
name the folder that they were made in.
"""

from __future__ import annotations

import csv
import io
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeline.errors import DependencyError, ModelError, UnavailableError

_PASSED_ON: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
)
_INDEX_VARIABLES: Final = re.compile(r"PIP_[A-Z_]+|(?:https?|no|all)_proxy", re.IGNORECASE)
_NO_ANSWER: Final = (
    "Connection refused",
    "ConnectTimeout",
    "ReadTimeout",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "Max retries exceeded",
)
_SAYS_WHY: Final = re.compile(
    r"^\s*(?:ERROR: |The conflict is caused by:|The user requested|    \S)"
)
_MANY_VERSIONS: Final = re.compile(r"\(from versions: [^)]{60,}((?:, [^,)]+){5})\)")
_MOST_FILE_BYTES: Final = 8 * 2**30
_TOLD_LINES: Final = 12


def install_wheels(
    python: Path,
    root: Path,
    packages: Sequence[str],
    constraints: Sequence[str],
    *,
    deadline: float,
) -> None:
    """Make the environment ``root`` and install packages into it.

    Args:
        python: The Python to make it with.
        root: The environment; must not exist.
        packages: Requirements in the form of PEP 508.
        constraints: Likewise.
        deadline: On the monotonic clock.

    Raises:
        ModelError: They cannot be had together, or not as wheels, or it takes too long.
        UnavailableError: The index does not answer.
        DependencyError: There is no pip, or the environment cannot be made.
    """
    status, output = _run([str(python), "-I", "-m", "venv", "--without-pip", str(root)], deadline)
    if status is None:
        raise _took_too_long()
    if status:
        raise DependencyError(f"{python} cannot make an environment: {output[-1:]}")
    bounds = root / "constraints.txt"
    bounds.write_text("".join(f"{line}\n" for line in constraints), encoding="utf-8")
    command = [sys.executable, "-I", "-m", "pip", "--python", str(root / "bin" / "python")]
    command += ["install", "--only-binary", ":all:", "--no-compile", "--no-input"]
    command += ["--disable-pip-version-check", "--no-warn-script-location", "--progress-bar=off"]
    command += ["--constraint", str(bounds), "--", *packages]
    status, output = _run(command, deadline)
    if status is None:
        raise _took_too_long()
    if status:
        raise _failed(output)


def compile_packages(python: Path, site_packages: Path, *, deadline: float) -> None:
    """Compile all modules, so that starting is quick where nobody may write.

    The compiled files name no folder and are never compared with the clock of a source file.
    """
    command = [str(python), "-I", "-m", "compileall", "-q", "-q", "-j", "0"]
    command += ["--invalidation-mode", "unchecked-hash", "-s", str(site_packages), "-p", ""]
    _run([*command, str(site_packages)], deadline)  # some packages carry files that do not compile


def normalize_records(site_packages: Path) -> None:
    """Leave out of the records what pip made for this folder alone: the start scripts."""
    for record in site_packages.glob("*.dist-info/RECORD"):
        with record.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row and not row[0].startswith("..")]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(sorted(rows))
        record.write_text(text.getvalue(), encoding="utf-8")


def _took_too_long() -> ModelError:
    return ModelError(
        "installing the packages of the model took longer than allowed",
        hint="run it again: what was downloaded already is kept by pip; or log the model with "
        "exact versions, which pip resolves at once",
    )


def _failed(output: Sequence[str]) -> Exception:
    if any(words in line for line in output for words in _NO_ANSWER):
        return UnavailableError(
            f"the package index does not answer: {_told(output)}",
            hint="check PIP_INDEX_URL, the proxy and the network, then run again",
        )
    if any("No module named pip" in line for line in output):
        return DependencyError(
            f"there is no pip in the environment of {sys.executable}",
            hint="install it: python -m ensurepip",
        )
    if any("No space left" in line for line in output):
        return DependencyError(
            f"there is no room for the packages of the model: {_told(output)}",
            hint="free some space, or set XDG_CACHE_HOME and TMPDIR to a larger disk",
        )
    return ModelError(
        f"the packages of the model cannot be installed: {_told(output)}",
        hint="log the model with pip_requirements=[...] that can be had together, as wheels for "
        "this Python and platform; packages of your own need an index, see PIP_EXTRA_INDEX_URL",
    )


def _told(output: Sequence[str]) -> str:
    lines = [line.strip().removeprefix("ERROR: ") for line in output if _SAYS_WHY.match(line)]
    lines = [_MANY_VERSIONS.sub(r"(from versions: …\1)", line) for line in lines]
    return "; ".join(lines[-_TOLD_LINES:]) or " ".join(output[-1:])


def _run(command: Sequence[str], deadline: float) -> tuple[int | None, list[str]]:
    """Exit status, None if it took too long, and what it said."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or _INDEX_VARIABLES.fullmatch(name)
    }
    with subprocess.Popen(  # noqa: S603  Python itself, and requirements that were parsed
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=kept | {"PYTHONHASHSEED": "0"},
        start_new_session=True,
    ) as process:
        try:
            with suppress(ProcessLookupError):
                limit = (_MOST_FILE_BYTES, _MOST_FILE_BYTES)
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limit)
            output, _ = process.communicate(timeout=max(0.0, deadline - time.monotonic()))
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return None, []
    return process.returncode, output.splitlines()
