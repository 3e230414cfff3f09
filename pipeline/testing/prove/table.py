"""The outcome of the proof: one row per scenario, and what was wrong in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(slots=True, kw_only=True)
class Row:
    """What one scenario came to; the five columns of failures have to be zero.

    Attributes:
        scenario: Its name.
        breaks: How often a publisher was killed or a request answered wrongly.
        requests: Requests of clients that should have been answered.
        failed: Those that were not.
        wrong: Answers of a version that must not be served, or other than that version's.
        half_loaded: Loads that Triton began and could not finish.
        wrong_state: Cases after which store, journal or server was not as wished.
        false_success: Publishers that reported a success that was none.
        seconds: How long it took.
        words: What was wrong.
    """

    scenario: str
    breaks: int = 0
    requests: int = 0
    failed: int = 0
    wrong: int = 0
    half_loaded: int = 0
    wrong_state: int = 0
    false_success: int = 0
    seconds: float = 0.0
    words: list[str] = field(default_factory=list)

    @property
    def failures(self) -> int:
        """All that should not have happened."""
        return sum(getattr(self, name) for name in FAILURES)


FAILURES: Final = ("failed", "wrong", "half_loaded", "wrong_state", "false_success")
_COLUMNS: Final = ("scenario", "breaks", "requests", *FAILURES, "seconds")


def text_table(rows: list[Row]) -> str:
    """The rows under a line of headings, in columns."""
    headings = [name.replace("_", " ") for name in _COLUMNS]
    cells = [[_cell(getattr(row, name)) for name in _COLUMNS] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in [headings, *cells]
    )


def _cell(value: str | float) -> str:
    if isinstance(value, float):
        return f"{value:.0f}"
    return value if isinstance(value, str) else f"{value:,}"
