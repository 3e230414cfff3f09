"""The work of one watcher: what is under way, and what is told of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from typing import Any, Final

from pipeline.watch.events import CANCELLED, ENDED, STAGE, STARTED, WARNING, Event, Tell
from pipeline.watch.jobs import Job, Workshop
from pipeline.watch.outcomes import Outcome
from pipeline.watch.tasks import Passed, Task

_NEARLY_SERVED: Final = frozenset(
    {
        *("commit", "load", "confirm", "restore", "record"),
        *("hold", "beside", "turn", "alone", "follow"),  # of a release of several models
    }
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ended:
    """Work that is over.

    Attributes:
        task: What it was.
        fingerprint: Of its wish, as it was begun; empty for a model that was taken away.
        outcome: How it ended.
    """

    task: Task
    fingerprint: str
    outcome: Outcome


class Work:
    """Jobs under way, by name in Triton; one at a time for each."""

    def __init__(self, workshop: Workshop, tell: Tell) -> None:
        self._workshop = workshop
        self._tell = tell
        self._fingerprints: dict[str, str] = {}
        self.jobs: dict[str, Job] = {}

    def begin(self, task: Task, fingerprint: str) -> None:
        """Begin with a task."""
        self.jobs[task.model] = self._workshop.start(task)
        self._fingerprints[task.model] = fingerprint
        self._event(STARTED, self.jobs[task.model])

    def cancel(self, model: str, because: str) -> None:
        """End work under way as by Ctrl-C; what ended already is left to :meth:`ended`."""
        job = self.jobs[model]
        if not job.is_cancelled:
            job.cancel()
            self._event(CANCELLED, job, message=because)

    def stop(self, *, at_once: bool) -> None:
        """End work under way; without ``at_once`` only what is not about to be served."""
        for model, job in self.jobs.items():
            if at_once or job.stage not in _NEARLY_SERVED:
                self.cancel(model, "the watcher was stopped")

    def await_news(self, wake: Connection, seconds: float | None) -> None:
        """Return when a job has ended or leaves room for another, when woken, or after a time.

        What jobs say meanwhile is told at once.

        Args:
            wake: Becomes readable when somebody wakes the watcher.
            seconds: The longest wait; None for as long as it takes.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            jobs = self.jobs.values()
            ready = wait_for([wake, *(each for job in jobs for each in job.ready)], timeout=left)
            changed = [job for job in jobs if job.take_in()]
            for job in jobs:
                self._tell_untold(job)
            if changed or not ready or wake in ready:
                return

    def ended(self) -> list[Ended]:
        """What has ended since the last call."""
        found = []
        for model, job in list(self.jobs.items()):
            outcome = job.poll()
            self._tell_untold(job)
            if outcome is None:
                continue
            del self.jobs[model]
            found.append(
                Ended(task=job.task, fingerprint=self._fingerprints.pop(model), outcome=outcome)
            )
            self._event(
                ENDED,
                job,
                outcome=outcome.kind,
                message=outcome.message,
                hint=outcome.hint,
                stages=job.seconds,
            )
        return found

    def _tell_untold(self, job: Job) -> None:
        for said in job.untold():
            if isinstance(said, Passed):
                self._event(STAGE, job, stage=said.stage, message=said.text, seconds=said.seconds)
            else:
                self._event(WARNING, job, message=said.text)

    def _event(self, kind: str, job: Job, *, seconds: float | None = None, **parts: Any) -> None:
        event = Event(
            kind=kind,
            at=time.time(),
            model=job.task.model,
            promotion=job.task.number,
            wish=str(job.task.wish or ""),
            seconds=time.monotonic() - job.started if seconds is None else seconds,
            **parts,
        )
        self._tell(event)
