"""Ensembles: models of Triton that are made of steps, which are other models.

A step names a model and either a version of it, or -1 for whichever is the newest one served. While
a release of several models switches, its ensembles name versions, so that no request meets the
first step of one release and the second step of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf import text_format

from pipeline.model_config import config_from_text

NEWEST: Final = -1
"""The version of a step that follows whatever is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of an ensemble: a model, and its version or :data:`NEWEST`."""

    model: str
    version: int


def steps_of(config: str) -> tuple[Step, ...]:
    """The steps of an ensemble, in order; empty for any other model.

    Raises:
        ValueError: The text is no ``config.pbtxt``.
    """
    steps = config_from_text(config).ensemble_scheduling.step
    return tuple(Step(model=s.model_name, version=int(s.model_version)) for s in steps)


def pinned(config: str, versions: Mapping[str, int]) -> str:
    """The same ensemble with these steps at these versions; others are as they were."""
    message = config_from_text(config)
    for step in message.ensemble_scheduling.step:
        step.model_version = versions.get(step.model_name, step.model_version)
    return str(text_format.MessageToString(message))
