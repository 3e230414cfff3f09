"""The package versions that a model was trained with, against those that are here.

MLflow writes both into the model's folder: ``requirements.txt`` and ``python_env.yaml``. They are
read as text, line by line: nothing of them is installed or run.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

_PIN: Final = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*==\s*([^\s;#,]+)")
_PYTHON: Final = re.compile(r"^python:\s*['\"]?([0-9]+(?:\.[0-9]+)*)", re.MULTILINE)
_MOST_BYTES: Final = 2**20
_MOST_TOLD: Final = 6
_OURS: Final = frozenset({"mlflow", "mlflow-skinny", "mlflow-tracing"})
"""They read the folder, whatever version wrote it."""

WITH_ITS_OWN: Final = "promote --env model exports it with the versions of its training"

_WHEELS: Final = {
    "sklearn": "scikit-learn",
    "skimage": "scikit-image",
    "cv2": "opencv-python",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "bs4": "beautifulsoup4",
    "google": "protobuf",
}
"""Packages whose module has another name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A package in two versions."""

    package: str
    trained: str
    here: str

    @property
    def is_major(self) -> bool:
        """Whether the versions promise nothing to each other."""
        return _series(self.trained) != _series(self.here)


def differences(model: Path) -> tuple[Difference, ...]:
    """Packages that are here in another version, and Python if its minor version differs."""
    found = [Difference(package=package, trained=pin, here=here)
             for package, pin in sorted(_pins(model).items())
             if (here := _installed(package)) and _release(here) != _release(pin)]  # fmt: skip
    python = _PYTHON.search(_text(model / "python_env.yaml"))
    here = platform.python_version()
    if python and python[1].split(".")[:2] != here.split(".")[:2]:
        found.insert(0, Difference(package="Python", trained=python[1], here=here))
    return tuple(found)


def described(found: Iterable[Difference]) -> str:
    """The differences as a sentence."""
    words = [f"{d.package} {d.trained} (here {d.here})" for d in found]
    more = f" and {len(words) - _MOST_TOLD} more" if len(words) > _MOST_TOLD else ""
    return f"the model was trained with {', '.join(words[:_MOST_TOLD])}{more}"


def wheel_of(module: str, model: Path) -> str:
    """What to install for a module: the version of the training; empty if nobody says.

    The name of a module is no name of a package: who installs by guessing installs a stranger's.
    """
    top = module.partition(".")[0]
    pins = _pins(model)
    for name in (_WHEELS.get(top, ""), top):
        package = _normal(name)
        if package in pins:
            return f"{package}=={pins[package]}"
    return _WHEELS.get(top, "")


def _pins(model: Path) -> dict[str, str]:
    lines = _text(model / "requirements.txt").splitlines()
    pins = {_normal(match[1]): match[2] for match in map(_PIN.match, lines) if match}
    return {name: pin for name, pin in pins.items() if name not in _OURS}


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MOST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _release(number: str) -> str:
    """Without the part that names a build, as in ``2.9.0+cpu``."""
    return number.partition("+")[0]


def _series(number: str) -> tuple[str, ...]:
    """What a version promises to stay compatible with: its first number, after 0 the second too."""
    parts = tuple(_release(number).split("."))
    return parts[:2] if parts[0] == "0" else parts[:1]
