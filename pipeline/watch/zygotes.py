"""Keeps a zygote ready, from which the children of all jobs are forked.

Guarantees: one that ended is replaced when the next job begins, and so is one that hangs; one that
does not work costs the jobs time, never their success, and is told about; after some that did not
work none is started for a while.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from pipeline.flows.zygote import Zygote

_log = logging.getLogger(__name__)

_WHILE_SECONDS: Final = 600.0
_MOST_FAILURES: Final = 3
"""So many within a while, and none is started until the first of them is longer ago."""

_IMPORT_SECONDS: Final = 120.0
"""How long one may leave its first jobs without an answer, because it still imports."""


class Zygotes:
    """At most one at a time."""

    def __init__(self) -> None:
        self._zygote: Zygote | None = None
        self._failures: list[float] = []
        self._is_told = False

    def ready(self) -> Zygote | None:
        """The one that runs, or another one; None while there is none."""
        if self._zygote is not None and not self._zygote.is_alive:
            failure = self._zygote.failure
            self.close()
            if failure:  # otherwise its libraries were older than those that are installed now
                self._count(failure)
        self._forget()
        if self._zygote is None and len(self._failures) < _MOST_FAILURES:
            try:
                self._zygote = Zygote()
            except OSError as error:
                self._count(f"cannot be started: {error}")
        return self._zygote

    def unanswered(self, zygote: Zygote) -> None:
        """Replace one that does not answer; the job that asked has told about it."""
        is_importing = time.monotonic() - zygote.started < _IMPORT_SECONDS
        if zygote is self._zygote and zygote.is_alive and not is_importing:
            self.close()
            self._count("hangs")

    def close(self) -> None:
        """End it."""
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def _forget(self) -> None:
        now = time.monotonic()
        self._failures = [at for at in self._failures if now - at < _WHILE_SECONDS]
        self._is_told = self._is_told and bool(self._failures)

    def _count(self, failure: str) -> None:
        """Take note of one that did not work; the first and the last one of some are told."""
        self._forget()
        is_first = not self._failures
        self._failures.append(time.monotonic())
        has_given_up = len(self._failures) >= _MOST_FAILURES
        if is_first or (has_given_up and not self._is_told):
            self._is_told = has_given_up
            then = "every child is a fresh interpreter for ten minutes, which takes seconds more"
            _log.warning(
                "the process that children are forked from %s; %s",
                failure,
                then if has_given_up else "another one is tried",
            )
