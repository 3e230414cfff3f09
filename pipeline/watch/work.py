"""The work of one watcher: what is under way, and what is told of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.watch.events import CANCELLED, ENDED, STARTED, Event, Tell
from pipeline.watch.jobs import Job, Task, Workshop
from pipeline.watch.outcomes import Outcome

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

    def ended(self) -> list[Ended]:
        """What has ended since the last call."""
        found = []
        for model, job in list(self.jobs.items()):
            outcome = job.poll()
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
                stages=outcome.seconds,
            )
        return found

    def _event(
        self,
        kind: str,
        job: Job,
        *,
        outcome: str = "",
        message: str = "",
        hint: str = "",
        stages: Mapping[str, float] | None = None,
    ) -> None:
        event = Event(
            kind=kind,
            at=time.time(),
            model=job.task.model,
            promotion=job.task.number,
            wish=str(job.task.wish or ""),
            outcome=outcome,
            message=message,
            hint=hint,
            seconds=time.monotonic() - job.started,
            stages=stages or {},
        )
        self._tell(event)
