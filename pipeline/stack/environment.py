"""The servers' own Python environment: made once, shared by all stacks of a user.

It lives in ``$XDG_CACHE_HOME/tritonpipe/servers-<digest>``; the digest covers the pinned list
``servers.txt`` and the Python, so another version of either gets another environment and a running
server never has its files replaced. A cache: deleting it costs a new installation, nothing else.

Guarantees: an environment is used only when it is complete, whatever killed its installation; two
installations at once become one. The variable ``TRITONPIPE_SERVERS`` names an environment that
somebody else has made, which is used as it is.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from pipeline.errors import DependencyError, SettingsError
from pipeline.flows.progress import Progress, silent
from pipeline.stack.installation import install_servers
from pipeline.stack.interpreter import (
    Interpreter,
    default_python,
    probe_interpreter,
    require_platform,
    require_servers_can_run,
    require_venv,
)

VARIABLE: Final = "TRITONPIPE_SERVERS"
_COMPLETE: Final = ".tritonpipe-complete"
_NEEDED_BYTES: Final = 3 * 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEnvironment:
    """A virtual environment that holds the servers.

    Attributes:
        root: The environment.
        python_version: Such as ``3.11``.
        library: libpython: an absolute path, or a name that the system's loader finds.
    """

    root: Path
    python_version: str
    library: str

    @property
    def bin(self) -> Path:
        """Its programs."""
        return self.root / "bin"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.bin / "python"

    @property
    def rclone(self) -> Path:
        """The S3 server."""
        return self.bin / "rclone"

    @property
    def site_packages(self) -> Path:
        """Its installed packages."""
        return self.root / "lib" / f"python{self.python_version}" / "site-packages"

    @property
    def triton(self) -> Path:
        """The folder with Triton's server, backends and stubs."""
        return self.site_packages / "pytriton" / "tritonserver"

    @property
    def libraries(self) -> Path:
        """Shared libraries that came with Triton."""
        return self.site_packages / "nvidia_pytriton.libs"

    def missing(self) -> tuple[Path, ...]:
        """Programs that should be in it and are not."""
        needed = (
            self.python,
            self.rclone,
            self.triton / "bin" / "tritonserver",
            self.site_packages / "mlflow",
            self.site_packages / "onnxruntime",
        )
        return tuple(path for path in needed if not path.exists())


def pinned_servers() -> tuple[str, ...]:
    """The requirements of ``servers.txt``, without comments."""
    text = (resources.files("pipeline.stack") / "servers.txt").read_text()
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line)


def cached_environment(interpreter: Interpreter, environment: Mapping[str, str]) -> Path:
    """Where the environment for this Python belongs."""
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    key = "\n".join((*pinned_servers(), interpreter.version, interpreter.prefix))
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    return Path(base) / "tritonpipe" / f"servers-{digest}"


def ensure_server_environment(
    progress: Progress = silent, *, python: Path | None = None
) -> ServerEnvironment:
    """The servers' environment, installed now if it is not there yet.

    Args:
        progress: Told about the installation; not called if there is nothing to do.
        python: The Python to make it with; by default the one that runs this program.

    Raises:
        DependencyError: A system library is missing, the platform is not supported, or the
            packages cannot be installed.
        SettingsError: ``TRITONPIPE_SERVERS`` or ``python`` is wrong.
    """
    require_platform()
    if given := os.environ.get(VARIABLE):
        return _given_environment(Path(given))
    interpreter = probe_interpreter(python or default_python())
    require_servers_can_run(interpreter)
    root = cached_environment(interpreter, os.environ)
    found = ServerEnvironment(
        root=root, python_version=interpreter.minor_version, library=interpreter.library
    )
    if _is_complete(found):
        return found
    require_venv(interpreter)
    root.parent.mkdir(parents=True, exist_ok=True)
    with _locked(root.with_suffix(".lock"), progress) as lock:
        if not _is_complete(found):
            _require_space(root.parent)
            if root.exists():
                shutil.rmtree(root)
            try:
                install_servers(
                    python or default_python(), root, pinned_servers(), progress, lock=lock
                )
            except BaseException:
                shutil.rmtree(root, ignore_errors=True)
                raise
            if missing := found.missing():
                raise DependencyError(f"after the installation there is no {missing[0]}")
            (root / _COMPLETE).touch()
    return found


def _is_complete(environment: ServerEnvironment) -> bool:
    return (environment.root / _COMPLETE).is_file() and not environment.missing()


def _given_environment(root: Path) -> ServerEnvironment:
    root = root.expanduser().absolute()
    interpreter = probe_interpreter(root / "bin" / "python")
    require_servers_can_run(interpreter)
    found = ServerEnvironment(
        root=root, python_version=interpreter.minor_version, library=interpreter.library
    )
    if missing := found.missing():
        raise SettingsError(
            f"{VARIABLE}={root} does not hold the servers: there is no {missing[0]}",
            hint=f"unset {VARIABLE} to have them installed",
        )
    return found


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[int]:
    """Wait for another installation of the same environment; its lock ends with its process."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress("waiting for another installation"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _require_space(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _NEEDED_BYTES:
        raise DependencyError(
            f"the servers need {_NEEDED_BYTES >> 30} GiB in {folder}, {free >> 20} MiB are free",
            hint="free some space or set XDG_CACHE_HOME to a folder on another disk",
        )
