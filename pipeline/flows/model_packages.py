"""The environment in which a model is exported with the package versions of its training.

A pickle of another version of scikit-learn may not load with ours, or load and predict something
else. Guarantees: what the model asks for is installed as it says; what exporting needs besides is
taken in the versions that are used here; nothing of it is imported before the isolated child is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pipeline
from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.flows.environments import build_environment, interpreter_for
from pipeline.flows.inner_process import ModelPackages
from pipeline.flows.progress import Progress
from pipeline.flows.requirements import Requirements, requirements_of
from pipeline.plugins import kinds
from pipeline.settings import Settings

OURS: Final = "ours"
MODEL: Final = "model"

_DISTRIBUTION: Final = "tritonpipe"
_CORE: Final = frozenset({"onnx", "onnxruntime", "numpy", "pyyaml"})
"""What exporting needs of what is always installed here."""

_CONVERTERS: Final = frozenset({"onnx", "onnxruntime", "skl2onnx", "onnxscript", "tf2onnx"})
"""Packages that decide what the graph is, and are taken in our versions."""

_EXTRAS: Final = {
    "sklearn": "sklearn",
    "xgboost": "sklearn",
    "lightgbm": "sklearn",
    "catboost": "sklearn",
    "pytorch": "pytorch",
    "transformers": "transformers",
    "keras": "keras",
    "tensorflow": "keras",
}
_INSTEAD: Final = {"tensorflow-cpu": "tensorflow", "xgboost-cpu": "xgboost"}
"""Builds of what a model may list under another name."""

_PYTHONS: Final = ("3.11", "3.12")
"""That this package runs on."""


def model_packages(
    source: SourceModel, exporter: str, settings: Settings, progress: Progress
) -> ModelPackages | None:
    """The packages with which a model is exported; None if it is done with ours.

    Raises:
        ModelError: They cannot be had together, or the model's Python is not one of ours.
        UnavailableError: The index does not answer.
        DependencyError: There is no pip, or no room.
    """
    if settings.env == OURS:
        return None
    with progress("packages") as describe:
        point = kinds("exporters")[exporter]
        code = Path(pipeline.__file__).parent
        if point.value.partition(".")[0] != code.name:
            raise ModelError(
                f"the exporter of {source.version} comes from another distribution than "
                f"{_DISTRIBUTION}, and cannot be taken into an environment of the model's packages",
                hint="promote it with --env ours (TRITONPIPE_ENV)",
            )
        wanted = export_requirements(source, exporter)
        environment = build_environment(wanted, seconds=settings.export_seconds)
        describe(
            f"{len(environment.packages)} of the model's own for Python "
            f"{environment.python_version}"
        )
    base = interpreter_for(wanted.python).resolve().parents[1]
    return ModelPackages(
        key=environment.key,
        root=environment.root,
        base=base,
        code=code,
        exporter=point.value,
    )


def export_requirements(source: SourceModel, exporter: str) -> Requirements:
    """What the model asks for, and what exporting it needs besides.

    Raises:
        ModelError: A line of it is no package of an index, or its Python is not one of ours.
    """
    own = requirements_of(source.path)
    if own.python and own.python not in _PYTHONS:
        raise ModelError(
            f"{source.version} was logged with Python {own.python}; an export runs on "
            f"{' or '.join(_PYTHONS)}",
            hint="log the model again with one of these, or promote it with --env ours",
        )
    listed = {canonicalize_name(Requirement(line).name) for line in own.packages}
    return requirements_of(source.path, extra=_besides(_EXTRAS.get(exporter, ""), listed))


def _besides(extra: str, listed: Iterable[str]) -> Iterator[str]:
    """Requirements of this package that the model does not list itself."""
    known = set(listed)
    for line in requires(_DISTRIBUTION) or ():
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        is_core = requirement.marker is None and name in _CORE
        is_extra = (
            requirement.marker is not None
            and bool(extra)
            and requirement.marker.evaluate({"extra": extra})
        )
        if not (is_core or is_extra) or name in known or _INSTEAD.get(name) in known:
            continue
        yield (
            _as_here(name) if name in _CONVERTERS else f"{requirement.name}{requirement.specifier}"
        )


def _as_here(name: str) -> str:
    try:
        return f"{name}=={version(name).partition('+')[0]}"
    except PackageNotFoundError:
        return name
