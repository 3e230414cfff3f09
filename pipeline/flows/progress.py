"""How flows tell what they are doing, without knowing who listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TypeAlias

Describe: TypeAlias = Callable[[str], None]
"""Called within a stage with its outcome in words."""

Progress: TypeAlias = Callable[[str], AbstractContextManager[Describe]]
"""Entered with the name of a stage, left when the stage is over."""


@contextmanager
def silent(_stage: str) -> Iterator[Describe]:
    """The default: nobody listens."""
    yield lambda _text: None


class Stopwatch:
    """Passes stages on to a listener and keeps how long each took, in seconds."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[Describe]:
        """Run one stage."""
        started = time.perf_counter()
        with self._progress(stage) as describe:
            try:
                yield describe
            finally:
                self.seconds[stage] = time.perf_counter() - started
