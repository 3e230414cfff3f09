"""What a check tells: what is wrong, what follows from it, and what to do about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """How much a finding matters.

    ``ERROR`` breaks or will break what is served, or the next publication; ``WARNING`` costs
    reloads, or changes that are not seen; ``NOTE`` is harmless, and somebody should know.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something in a repository that should not be so.

    Attributes:
        severity: How much it matters.
        code: Names the kind of finding, for scripts.
        subject: Key or folder, relative to the repository; or a model, or one version of it.
        message: What it is and what follows from it.
        hint: What to do about it.
    """

    severity: Severity
    code: str
    subject: str
    message: str
    hint: str
