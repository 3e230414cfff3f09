"""Why models are not what the store says, and when each is tried again."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass

from pipeline.mirror.advance import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What keeps one model from moving.

    Attributes:
        reason: One word, for metrics.
        text: The same in words.
        fingerprint: Of what the store held; another one is tried at once.
        wait: Seconds from this failure to the next attempt.
        retry_at: When that is, in seconds since 1970.
    """

    reason: str
    text: str
    fingerprint: str
    wait: float
    retry_at: float


class Troubles:
    """The troubles of all models, and how often what failed; used by several threads."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._lock = threading.Lock()
        self._by_model: dict[str, Trouble] = {}
        self._failures: Counter[str] = Counter()

    def all(self) -> dict[str, Trouble]:
        """The troubles now, by model."""
        with self._lock:
            return dict(self._by_model)

    def failures(self) -> dict[str, int]:
        """How often something failed since the start, by reason."""
        with self._lock:
            return dict(self._failures)

    def count(self, reason: str) -> None:
        """Something failed that is not about one model."""
        with self._lock:
            self._failures[reason] += 1

    def note(self, model: str, fingerprint: str, reason: str, text: str) -> bool:
        """A model could not be moved; the wait doubles while the store holds the same.

        Returns:
            Whether this was not known yet.
        """
        with self._lock:
            before = self._by_model.get(model)
            seconds = self._rules.retry_seconds
            if before is not None and before.fingerprint == fingerprint:
                seconds = min(2 * before.wait, self._rules.retry_limit)
            self._by_model[model] = Trouble(
                reason=reason,
                text=text,
                fingerprint=fingerprint,
                wait=seconds,
                retry_at=time.time() + seconds,
            )
            self._failures[reason] += 1
        return before is None or before.text != text

    def forgive(self, model: str) -> None:
        """The model is what the store says, or the store says nothing of it."""
        with self._lock:
            self._by_model.pop(model, None)

    def must_wait(self, model: str, fingerprint: str) -> bool:
        """Whether the same was tried too short a time ago."""
        trouble = self.all().get(model)
        return (
            trouble is not None
            and trouble.fingerprint == fingerprint
            and time.time() < trouble.retry_at
        )
