"""What a logged model says that it needs, as far as it is installed for it.

Read from ``requirements.txt`` and ``python_env.yaml`` in the model's folder, as text. Guarantees:
every line is a package of an index with versions, never an address, a path or an option, so that
whoever wrote the file chooses neither where packages come from nor what is run to install them.

The line of MLflow is replaced by what loading and predicting need: MLflow without its server, any
release of the same major version, since an index may not have the one that wrote the model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from pipeline.errors import ModelError

_MOST_BYTES: Final = 2**20
_PYTHON: Final = re.compile(r"^python:\s*['\"]?([0-9]+\.[0-9]+)", re.MULTILINE)
_CONSTRAINTS: Final = re.compile(r"^(?:-c|--constraint)[ =]\s*([A-Za-z0-9._-]+)$")
_LOCAL: Final = re.compile(r"(===?[^,+]+)\+[A-Za-z0-9.]+")
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_MLFLOW: Final = frozenset({"mlflow", "mlflow-skinny", "mlflow-tracing"})
_NEEDED: Final = ("mlflow-skinny", "numpy", "pandas")
"""What ``mlflow.pyfunc`` imports, whether the model lists it or not."""

_HOW_TO_LIST: Final = (
    "log the model with pip_requirements=[...] of names and versions; indexes are set where "
    "tritonpipe runs, with PIP_INDEX_URL or pip's own configuration"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What an environment is made of.

    Attributes:
        python: The minor version of Python, such as ``3.11``; empty if the model names none.
        packages: Requirements in the form of PEP 508, sorted.
        constraints: The same; they bound versions and ask for nothing.
    """

    python: str
    packages: tuple[str, ...]
    constraints: tuple[str, ...] = ()


def requirements_of(model: Path, *, extra: Iterable[str] = ()) -> Requirements:
    """What the model in a folder needs to be loaded and to predict.

    Args:
        model: The fetched model, the folder with ``MLmodel``.
        extra: Further requirements. They replace what would be added for MLflow's sake, and are
            beside what the model itself asks for.

    Raises:
        ModelError: A line is no package of an index with versions; names the line.
    """
    packages: list[Requirement] = []
    constraints: list[Requirement] = []
    major = ""
    for line in _lines(model / "requirements.txt"):
        if found := _CONSTRAINTS.match(line):
            constraints += [_requirement(bound, model) for bound in _lines(model / found[1])]
            continue
        requirement = _requirement(line, model)
        if canonicalize_name(requirement.name) in _MLFLOW:
            major = major or _major(requirement)
        else:
            packages.append(requirement)
    packages += [Requirement(line) for line in extra]
    listed = {canonicalize_name(requirement.name) for requirement in packages}
    packages += [Requirement(name) for name in _NEEDED if name not in listed]
    python = _PYTHON.search(_text(model / "python_env.yaml"))
    return Requirements(
        python=python[1] if python else "",
        packages=_written(_relaxed(packages, major)),
        constraints=_written(r for r in constraints if canonicalize_name(r.name) not in _MLFLOW),
    )


def _relaxed(packages: Iterable[Requirement], major: str) -> Iterator[Requirement]:
    for requirement in packages:
        if requirement.name == "mlflow-skinny" and not requirement.specifier and major:
            requirement.specifier = SpecifierSet(f">={major},<{int(major) + 1}")
        yield requirement


def _written(packages: Iterable[Requirement]) -> tuple[str, ...]:
    # A build's own label, as in 2.9.0+cpu, names a file of one index; without it any build will do.
    return tuple(sorted({_LOCAL.sub(r"\1", str(requirement)) for requirement in packages}))


def _major(requirement: Requirement) -> str:
    """The major version that is pinned, if one is."""
    pinned = [s.version for s in requirement.specifier if s.operator in ("==", "~=", ">=")]
    first = pinned[0].partition(".")[0] if pinned else ""
    return first if first.isdecimal() else ""


def _requirement(line: str, model: Path) -> Requirement:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        kind = "an option" if line.startswith("-") else "no package with versions"
        raise _refused(line, kind, model) from None
    if requirement.url:
        raise _refused(line, "an address", model)
    return requirement


def _refused(line: str, kind: str, model: Path) -> ModelError:
    return ModelError(
        f"requirements.txt of the model in {model} has the line {line!r}, which is {kind}: only "
        "packages of an index are installed",
        hint=_HOW_TO_LIST,
    )


def _lines(file: Path) -> Iterator[str]:
    for line in _text(file).replace("\\\n", " ").splitlines():
        bare = _COMMENT.sub("", line).strip()
        if bare:
            yield bare


def _text(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MOST_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return ""
