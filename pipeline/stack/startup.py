"""What one command has started: all of it answers in the end, or none of it runs."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from pipeline.flows.progress import Progress
from pipeline.interrupts import deferred_interrupts
from pipeline.stack.leftovers import remove_leftovers
from pipeline.stack.part import Launch, Part
from pipeline.stack.state import StateDirectory

Tell = Callable[[str], None]
"""Called with a sentence for the user, when something is not as could be expected."""


class Startup:
    """Starts parts; left by an exception (Ctrl-C too), it ends those that it has started.

    A part that ended by itself stays on record as having died, so that its log can be asked for.
    """

    def __init__(self, state: StateDirectory, progress: Progress, tell: Tell) -> None:
        self._state = state
        self._progress = progress
        self._tell = tell
        self._started: dict[str, Part] = {}
        self._launches: dict[str, Launch] = {}

    def __enter__(self) -> Startup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            return
        with deferred_interrupts():
            for part in reversed(self._started.values()):
                part.stop_unless_died()
            if "triton" in self._started:
                remove_leftovers(self._state)

    def has_started(self, part: Part) -> bool:
        """Whether it did not run before."""
        return part.name in self._started

    def start(self, part: Part, prepare: Callable[[], Launch]) -> None:
        """Start a part unless it runs; ``prepare`` is called when nothing of it is left."""
        if part.is_running:
            return
        if part.state() == "died":
            self._tell(f"starting again: {part.failure().message}")
        part.stop()
        self._started[part.name] = part
        self._launches[part.name] = prepare()
        part.start(self._launches[part.name])

    def wait(self, part: Part, outcome: str) -> None:
        """Return when a part answers, if it was started here.

        Raises:
            StackError: It ended or does not answer.
        """
        if not self.has_started(part):
            return
        with self._progress(part.title) as describe:
            part.wait_until_ready(self._launches[part.name])
            describe(outcome)
