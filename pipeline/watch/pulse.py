"""What is known of a running loop from outside: whether it is well, and how things stand."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from pipeline.watch.difference import (
    AWAITING,
    HELD,
    IMPOSSIBLE,
    KEPT,
    SERVING,
    Difference,
    Standing,
)
from pipeline.watch.events import ENDED, Event

# What a person decided, or nobody can fulfil, is no lag.
_AT_REST = frozenset({SERVING, KEPT, IMPOSSIBLE, HELD, AWAITING})


@dataclass(slots=True, kw_only=True)
class Pulse:
    """Kept up to date by the loop, read by others in their own threads.

    Attributes:
        interval: Seconds between two rounds when nothing happens.
        started: When the watcher was started, in seconds since 1970.
        is_leading: Whether this watcher acts, and does not wait for another one to be gone.
        last_try: When a round was tried last, well or not; None for never.
        last_round: When a round went well last; None for never.
        rounds: How many rounds went well.
        failure: Why the last round failed; empty if it went well.
        standings: Every model, as the last round saw it.
        unfulfilled_since: Since when a wish has not been what is served, by name in Triton.
        outcomes: How often work ended in which way.
        stage_seconds: What the stages of work took together, and how often each was passed.
    """

    interval: float
    started: float = field(default_factory=time.time)
    is_leading: bool = False
    last_try: float | None = None
    last_round: float | None = None
    rounds: int = 0
    failure: str = ""
    standings: tuple[Standing, ...] = ()
    unfulfilled_since: dict[str, float] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    stage_seconds: defaultdict[str, tuple[float, int]] = field(
        default_factory=lambda: defaultdict(lambda: (0.0, 0))
    )

    def went_well(self, found: Difference) -> None:
        """Take in a round."""
        now = time.time()
        self.last_try = self.last_round = now
        self.rounds += 1
        self.failure = ""
        self.standings = found.standings
        self.unfulfilled_since = {
            s.model: self.unfulfilled_since.get(s.model, now)
            for s in found.standings
            if s.wish is not None and s.state not in _AT_REST
        }

    def failed(self, reason: str) -> None:
        """Take in a round that failed."""
        self.last_try = time.time()
        self.failure = reason

    def take(self, event: Event) -> None:
        """Count work that ended."""
        if event.kind != ENDED:
            return
        self.outcomes[event.outcome] += 1
        for stage, seconds in event.stages.items():
            total, count = self.stage_seconds[stage]
            self.stage_seconds[stage] = total + seconds, count + 1

    @property
    def is_alive(self) -> bool:
        """Whether the loop turns: rounds are tried, well or not; one that waits to lead is well."""
        latest = self.last_try if self.last_try is not None else self.started
        return not self.is_leading or time.time() - latest < 60.0 + 3 * self.interval

    @property
    def is_ready(self) -> bool:
        """Whether it does what it is for: it leads and the last round went well, or it waits."""
        return not self.failure and (not self.is_leading or self.last_round is not None)
