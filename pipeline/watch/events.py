"""What a watcher tells while it works: values, from which a door makes lines, metrics or traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

STARTED: Final = "started"
ENDED: Final = "ended"
CANCELLED: Final = "cancelled"
LEADING: Final = "leading"
WAITING: Final = "waiting"
ROUND_FAILED: Final = "round failed"
STANDING: Final = "standing"
STAGE: Final = "stage"
WARNING: Final = "warning"
CONFIGURED: Final = "configured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: :data:`STARTED`, :data:`ENDED` or :data:`CANCELLED` for work on one model;
            :data:`STAGE` and :data:`WARNING` within it; :data:`STANDING` when what is true of a
            model changed without work; :data:`LEADING` and :data:`WAITING` for the watcher itself;
            :data:`ROUND_FAILED` when a source did not answer, or by a bug.
        at: Seconds since 1970.
        model: Name in Triton; empty if it is about no single one.
        promotion: Names one piece of work through all its events; empty for no work.
        wish: What was wished, in words; empty if nothing.
        outcome: How work ended: ``promoted``, ``unchanged``, ``retired``, or the error's class; the
            state of a standing; empty otherwise.
        stage: Which stage is over; empty otherwise.
        message: What happened, or why; empty if there is nothing to say.
        hint: What to do about it; empty likewise.
        seconds: How long work, or its stage, took.
        stages: How long each stage of work took that has ended, in seconds.
    """

    kind: str
    at: float
    model: str = ""
    promotion: str = ""
    wish: str = ""
    outcome: str = ""
    stage: str = ""
    message: str = ""
    hint: str = ""
    seconds: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)


Tell: TypeAlias = Callable[[Event], None]
