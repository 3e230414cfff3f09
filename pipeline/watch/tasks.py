"""What one piece of work is to do, as it is handed to the process that does it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.settings import Settings
from pipeline.watch.memory import Origin
from pipeline.watch.wishes import Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Fulfil a wish, or take a model away.

    Attributes:
        model: Name in Triton.
        wish: The wish; None to take the model away.
        origin: On whose behalf the model was served; None for a wish.
        settings: Those that hold for this model.
        number: Names this piece of work in logs, metrics and traces.
        needs_export: Whether no release of the version is recorded yet.
    """

    model: str
    wish: Wish | None
    settings: Settings
    number: str
    origin: Origin | None = None
    needs_export: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """Work has come to a stage."""

    stage: str


@dataclass(frozen=True, slots=True)
class Passed:
    """A stage is over, well or not.

    Attributes:
        stage: Which.
        seconds: How long it took.
        text: What it came to, in words; empty if it failed.
    """

    stage: str
    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that somebody should know, although the work goes on."""

    text: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The process that children are forked from hangs."""
