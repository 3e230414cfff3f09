"""Ceph's programs from Debian 13, beside the system: nothing is installed into it.

Debian 12 has an older Ceph with other bugs. So the packages of Debian 13, and every library they
need down to the C library, are unpacked into a folder of the user's cache, and its programs are run
by that C library's own loader. Works on any Linux with apt, dpkg and Debian's keys, without root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import DependencyError

_PACKAGES: Final = ("radosgw", "ceph-mon", "ceph-osd")
_SOURCE: Final = (
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    "http://deb.debian.org/debian trixie main\n"
)
_APT: Final = """
Dir::State "{folder}/state";
Dir::State::status "{folder}/state/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
"""
_UNUSED: Final = ("usr/share/doc", "usr/share/locale", "usr/share/man", "usr/share/zoneinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Unpacked packages."""

    root: Path

    @property
    def libraries(self) -> Path:
        """Where Debian puts shared libraries."""
        return self.root / "usr" / "lib" / "x86_64-linux-gnu"

    def command(self, program: str, *arguments: str) -> tuple[str, ...]:
        """How to run one of its programs with its own libraries."""
        loader = self.libraries / "ld-linux-x86-64.so.2"
        path = f"{self.libraries}:{self.libraries / 'ceph'}"
        executable = self.root / "usr" / "bin" / program
        return (str(loader), "--library-path", path, str(executable), *arguments)

    def python(self, script: str, *arguments: str) -> tuple[str, ...]:
        """How to run one of its Python scripts with its own Python."""
        home = self.root / "usr"
        packages = home / "lib" / "python3" / "dist-packages"
        variables = (f"PYTHONHOME={home}", f"PYTHONPATH={packages}", "PYTHONDONTWRITEBYTECODE=1")
        interpreter = self.command("python3.13", str(home / "bin" / script))
        return ("/usr/bin/env", *variables, *interpreter, *arguments)


def installed_radosgw() -> Installation | None:
    """The installation, or None if there is none."""
    root = _place()
    return Installation(root=root) if root.is_dir() else None


def install_radosgw() -> Installation:
    """Download (140 MB) and unpack (450 MB) it, unless it is there; killed, it can be run again.

    Raises:
        DependencyError: apt is missing, or cannot reach Debian's packages.
    """
    root = _place()
    if root.is_dir():
        return Installation(root=root)
    unfinished = root.with_name(f"{root.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _unpack(_download(unfinished / "apt"), unfinished / "root")
        (unfinished / "root").rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Installation(root=root)


def _place() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tritonpipe" / "radosgw-trixie"


def _download(folder: Path) -> list[Path]:
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "state" / "status").touch()
    (folder / "sources.list").write_text(_SOURCE)
    config = folder / "apt.conf"
    config.write_text(_APT.format(folder=folder))
    for arguments in (("update",), ("install", "--download-only", *_PACKAGES)):
        _run(("apt-get", "-q", "-y", *arguments), APT_CONFIG=str(config))
    return sorted((folder / "cache" / "archives").glob("*.deb"))


def _unpack(packages: list[Path], root: Path) -> None:
    root.mkdir()
    for package in packages:
        _run(("dpkg-deb", "-x", str(package), str(root)))
    for folder in _UNUSED:
        shutil.rmtree(root / folder, ignore_errors=True)


def _run(command: tuple[str, ...], **variables: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603  of Debian's own tools
            command, env={**os.environ, **variables}, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise DependencyError(
            f"radosgw cannot be installed here: there is no {command[0]}",
            hint="use a machine with Debian or Ubuntu",
        ) from error
    if done.returncode:
        raise DependencyError(
            f"{' '.join(command[:4])} failed: {done.stderr[-1000:]}",
            hint="check that apt reaches deb.debian.org, and install debian-archive-keyring",
        )
