"""Finds out whether a Python can carry the servers, before anything is downloaded for it.

Triton's Python backend is a C++ program linked against ``libpython3.X.so.1.0``. A distribution's
plain ``python3.X`` package comes without that library, and without it every model fails to load
with an error that does not name the package to install. So it is looked for first.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import DependencyError, SettingsError
from pipeline.serialization import from_json

SUPPORTED: Final = ("3.11", "3.12")
"""Versions for which every pinned server has a wheel."""

_PROBE: Final = """
import ctypes, importlib.util, json, os, platform, sys, sysconfig
name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
beside = os.path.join(sysconfig.get_config_var("LIBDIR") or "", name)
def loads(library):
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
print(json.dumps({
    "version": platform.python_version(),
    "prefix": sys.base_prefix,
    "has_venv": all(importlib.util.find_spec(module) for module in ("venv", "ensurepip")),
    "library": beside if os.path.exists(beside) else name if loads(name) else "",
}))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """What was found out about a Python.

    Attributes:
        version: Such as ``3.11.7``.
        prefix: Where its standard library is installed.
        has_venv: Whether it can make virtual environments with pip.
        library: Its shared library: an absolute path, or a bare name that the system's loader
            finds, or empty if there is none.
    """

    version: str
    prefix: str
    has_venv: bool
    library: str

    @property
    def minor_version(self) -> str:
        """Such as ``3.11``."""
        return ".".join(self.version.split(".")[:2])


def probe_interpreter(python: Path) -> Interpreter:
    """Ask a Python about itself, in a child process.

    Raises:
        SettingsError: It is not a Python that runs.
    """
    try:
        answer = subprocess.run(
            [str(python), "-I", "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found: Interpreter = from_json(Interpreter, json.loads(answer.stdout))
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise SettingsError(
            f"{python} does not run as a Python: {error}",
            hint="name a Python 3.11 or 3.12 with --python",
        ) from error
    return found


def require_platform(system: str = sys.platform, machine: str = platform.machine()) -> None:
    """Return if Triton's wheel exists for this machine.

    Raises:
        DependencyError: It does not.
    """
    if system != "linux" or machine not in {"x86_64", "AMD64"}:
        raise DependencyError(
            f"the embedded Triton server exists for Linux on x86-64 only, this is {system} on "
            f"{machine}",
            hint="point TRITONPIPE_TRITON_HTTP and TRITONPIPE_TRITON_GRPC at a server elsewhere",
        )


def require_servers_can_run(interpreter: Interpreter) -> None:
    """Return if the servers can run on this Python.

    Raises:
        DependencyError: Something is missing; the hint names the package to install.
    """
    minor = interpreter.minor_version
    if minor not in SUPPORTED:
        raise DependencyError(
            f"the servers need Python {' or '.join(SUPPORTED)}, found {interpreter.version}",
            hint="name one with --python",
        )
    if not interpreter.library:
        raise DependencyError(
            f"Triton's Python backend needs libpython{minor}.so.1.0, which is not installed",
            hint=f"sudo apt-get install libpython{minor}   (Fedora: python3-libs)",
        )


def require_venv(interpreter: Interpreter) -> None:
    """Return if an environment can be made with this Python.

    Raises:
        DependencyError: It has no ``venv`` or no ``ensurepip``.
    """
    if not interpreter.has_venv:
        minor = interpreter.minor_version
        raise DependencyError(
            f"Python {interpreter.version} cannot make virtual environments: the modules venv and "
            "ensurepip are not installed",
            hint=f"sudo apt-get install python{minor}-venv",
        )


def default_python() -> Path:
    """The Python that runs this program."""
    return Path(sys.executable)
