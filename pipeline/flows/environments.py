"""Environments built from what models say that they need: made once, kept below the user's cache.

:func:`build_environment` gives a virtual environment with a Python of the wanted minor version and
the packages of a :class:`pipeline.flows.requirements.Requirements`, and nothing of ours.

Guarantees: only wheels are installed, so no setup code of a package runs; pip sees an allow-list of
variables (addresses and credentials of indexes, never those of the stores and servers), and has
limits of time and size; an environment is used only when it is complete, whatever killed its
installation, and two installations of the same one become one. What a package does when it is
*imported* is the business of the process that uses the environment: run that isolated.

This needs the network, or an index in a folder, and is therefore done before the isolated child is
started and never in it. An environment is found again by the digest of its requirements, the
Python and the platform: deleting it costs a new installation, nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from pipeline.errors import DependencyError, ModelError
from pipeline.flows.installation import compile_packages, install_wheels, normalize_records
from pipeline.flows.requirements import Requirements
from pipeline.packed_models import PythonPackages
from pipeline.runner.unpacking import extract_all
from pipeline.tar_archives import write_tar

MOST_BYTES: Final = 4 * 2**30
"""Of one environment; PyTorch with CUDA's libraries is about 5 GiB, without them under 1 GiB."""

_SECONDS: Final = 900.0
_ARCHIVE: Final = "packages.tar.gz"
_UNPACKED: Final = "packages"
_COMPLETE: Final = "complete.json"
_FORM: Final = 1
"""Counts the ways in which environments were ever laid out."""

_UNUSED_SECONDS: Final = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A complete virtual environment; nobody may write into it.

    Attributes:
        root: The environment.
        key: Names everything that decides what is in it.
        python_version: The minor version, such as ``3.11``.
        packages: Every distribution that is installed, such as ``numpy==2.4.6``, sorted.
    """

    root: Path
    key: str
    python_version: str
    packages: tuple[str, ...]

    @property
    def python(self) -> Path:
        """Its interpreter; with ``-I`` it sees the standard library and these packages only."""
        return self.root / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Its installed packages, with their compiled files."""
        return self.root / "lib" / f"python{self.python_version}" / "site-packages"


def packed_packages(environment: Environment) -> PythonPackages:
    """The packages of an environment as an archive, packed now if it was not yet.

    The folder with them is what unpacking the archive gave, so that what is run from it is what a
    server will run.
    """
    archive, unpacked = environment.root / _ARCHIVE, environment.root / _UNPACKED
    with _locked(environment.root.with_suffix(".lock")):
        if not archive.exists() or not unpacked.exists():
            packing, unpacking = archive.with_suffix(".partial"), unpacked.with_suffix(".partial")
            with packing.open("w+b") as file:
                write_tar(environment.site_packages, file, is_compressed=True)
                file.seek(0)
                shutil.rmtree(unpacking, ignore_errors=True)
                extract_all(file, unpacking, name=_ARCHIVE, deadline=math.inf)
            packing.rename(archive)
            unpacking.rename(unpacked)
    return PythonPackages(
        folder=unpacked,
        archive=archive,
        python_version=environment.python_version,
        installed=environment.packages,
    )


def environments_folder() -> Path:
    """Where environments are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "tritonpipe" / "environments"


def build_environment(
    requirements: Requirements,
    *,
    folder: Path | None = None,
    seconds: float = _SECONDS,
    most_bytes: int = MOST_BYTES,
) -> Environment:
    """The environment for some requirements, installed now if it is not there yet.

    Args:
        requirements: What :func:`pipeline.flows.requirements.requirements_of` gave.
        folder: Where environments are kept; by default :func:`environments_folder`.
        seconds: How long the installation may take.
        most_bytes: How large the environment may be.

    Raises:
        ModelError: The packages cannot be had together, or not as wheels, or are too large, or
            the model wants a Python that is not on this machine. The message has pip's reason.
        DependencyError: There is no pip, or no room.
        UnavailableError: The index does not answer.
    """
    python = interpreter_for(requirements.python)
    key = environment_key(requirements, python)
    folder = folder or environments_folder()
    root = folder / key
    found = _complete(root, key)
    if found is not None:
        return found
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(folder / f"{key}.lock"):
        found = _complete(root, key)
        if found is not None:
            return found
        _remove_unused(folder)
        shutil.rmtree(root, ignore_errors=True)
        try:
            return _built(requirements, python, root, key, seconds, most_bytes)
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise


def interpreter_for(minor_version: str) -> Path:
    """A Python of a minor version, outside of any virtual environment; by default ours.

    Raises:
        ModelError: There is none on this machine.
    """
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if minor_version in ("", ours):
        return Path(getattr(sys, "_base_executable", "") or sys.executable)
    found = shutil.which(f"python{minor_version}")
    if found is None:
        raise ModelError(
            f"the model was logged with Python {minor_version}, and there is no "
            f"python{minor_version} on this machine (tritonpipe runs on {ours})",
            hint=f"install Python {minor_version}, or log the model with Python {ours}",
        )
    return Path(found)


def environment_key(requirements: Requirements, python: Path) -> str:
    """Names everything that decides what is installed, but the day on which it was asked for."""
    document = [
        _FORM,
        requirements.packages,
        requirements.constraints,
        _described(python),
        platform.machine(),
        "".join(platform.libc_ver()),
    ]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()[:32]


@cache
def _described(python: Path) -> str:
    """Its version; that of ours needs no process."""
    if python == Path(getattr(sys, "_base_executable", "")):
        return platform.python_version()
    try:
        words = [str(python), "-I", "-c", "import platform; print(platform.python_version())"]
        return subprocess.run(  # noqa: S603  a Python of this machine
            words, capture_output=True, text=True, timeout=60, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        raise DependencyError(f"{python} does not run: {error}") from error


def _built(
    requirements: Requirements,
    python: Path,
    root: Path,
    key: str,
    seconds: float,
    most_bytes: int,
) -> Environment:
    deadline = time.monotonic() + seconds
    version = ".".join(_described(python).split(".")[:2])
    install_wheels(python, root, requirements.packages, requirements.constraints, deadline=deadline)
    environment = Environment(root=root, key=key, python_version=version, packages=())
    normalize_records(environment.site_packages)
    compile_packages(environment.python, environment.site_packages, deadline=deadline)
    size = sum(p.lstat().st_size for p in environment.site_packages.rglob("*") if p.is_file())
    if size > most_bytes:
        raise ModelError(
            f"the packages of the model take {size / 2**30:.1f} GiB, at most "
            f"{most_bytes / 2**30:.1f} GiB are allowed",
            hint="log the model with fewer pip_requirements; a build of PyTorch for the CPU is "
            "much smaller: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu",
        )
    packages = sorted(_distributions(environment.site_packages))
    document = {"python_version": version, "packages": packages, "bytes": size}
    (root / _COMPLETE).write_text(json.dumps(document, indent=1), encoding="utf-8")
    complete = _complete(root, key)
    if complete is None:
        raise DependencyError(f"the environment in {root} is not complete after its installation")
    return complete


def _distributions(site_packages: Path) -> Iterator[str]:
    for folder in site_packages.glob("*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        yield f"{name.replace('_', '-').lower()}=={version}"


def _complete(root: Path, key: str) -> Environment | None:
    try:
        document: Mapping[str, object] = json.loads((root / _COMPLETE).read_bytes())
        os.utime(root / _COMPLETE)
        packages = document["packages"]
        if not isinstance(packages, list) or not (root / "bin" / "python").exists():
            return None
        return Environment(
            root=root,
            key=key,
            python_version=str(document["python_version"]),
            packages=tuple(packages),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove_unused(folder: Path) -> None:
    """Environments that nobody asked for in a month."""
    for marker in folder.glob(f"*/{_COMPLETE}"):
        with suppress(OSError):
            if time.time() - marker.stat().st_mtime > _UNUSED_SECONDS:
                marker.unlink()
                shutil.rmtree(marker.parent, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for another installation of the same environment; its lock ends with its process."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
