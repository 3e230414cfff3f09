"""One round after the other: read, compare, act; and take in how work ended."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.flows.servers import Servers
from pipeline.settings import Settings
from pipeline.watch.difference import (
    PENDING,
    PROMOTING,
    RETIRING,
    RETRYING,
    SERVING,
    Difference,
    Policy,
    Seen,
    Standing,
    difference,
    still_failing,
)
from pipeline.watch.events import CANCELLED, ENDED, STANDING, STARTED, Event, Tell
from pipeline.watch.fingerprints import Fingerprints
from pipeline.watch.jobs import Job, Task, Workshop
from pipeline.watch.memory import Memory, MemoryStore, Origin
from pipeline.watch.outcomes import INTERRUPTED, Outcome, failure_after
from pipeline.watch.published import PublishedModels
from pipeline.watch.readiness import Readiness
from pipeline.watch.wishes import Rule, Wish, wishes_of

_TOLD_BY_WORK: Final = frozenset({PENDING, PROMOTING, SERVING, RETRYING, RETIRING})

DEFAULT_EXPORTS: Final = max(1, (os.cpu_count() or 2) // 2)

_QUICK_JOBS: Final = 8
"""Versions whose release is recorded need no export: so many of them are served at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a watcher is to look after, and how.

    Attributes:
        rules: Which registered models, under which names.
        policy: What happens when an alias is removed.
        settings_for: The settings that hold for a name in Triton.
        conditions: Settings and tools in a form that changes when they do, by name in Triton.
        exports: How many models are exported at once.
    """

    rules: tuple[Rule, ...]
    policy: Policy
    settings_for: Callable[[str], Settings]
    conditions: Callable[[str], str]
    exports: int


class Rounds:
    """The state between rounds: work under way, and what is remembered.

    Args:
        servers: Registry, repository and Tritons.
        plan: What to look after.
        workshop: Starts the work.
        tell: Told what happens.
    """

    def __init__(self, servers: Servers, plan: Plan, workshop: Workshop, tell: Tell) -> None:
        self._servers = servers
        self._plan = plan
        self._workshop = workshop
        self._tell = tell
        self._kept = MemoryStore(servers.journal.store)
        self._memory: Memory | None = None
        self._published = PublishedModels(servers.repository, servers.journal)
        self._readiness = Readiness(servers.replicas)
        self._fingerprints = Fingerprints(servers.registry, plan.conditions)
        self._unwished_since: dict[str, float] = {}
        self._standings: dict[str, Standing] = {}
        self.jobs: dict[str, Job] = {}
        self._started_with: dict[str, str] = {}

    def step(self) -> Difference:
        """One round; returns what it saw and decided.

        Raises:
            TritonpipeError: A source did not answer: nothing was started, work under way goes on.
        """
        self._take_in()
        seen = self._look()
        found = difference(seen, self._plan.policy)
        for model, because in found.cancel.items():
            self._cancel(model, because)
        self._start(found)
        self._remember(self._memory_of(seen))
        self._tell_changes(found)
        return found

    def stop(self, *, at_once: bool) -> None:
        """End work under way; without ``at_once`` only what is not about to be served."""
        for model, job in self.jobs.items():
            if at_once or job.stage not in {"commit", "load", "confirm", "restore", "record"}:
                self._cancel(model, "the watcher was stopped")

    def settle(self) -> None:
        """Take in what ended, without looking at anything else."""
        self._take_in()
        if self._memory is not None:
            self._remember(self._memory)

    def _look(self) -> Seen:
        now = time.time()
        if self._memory is None:
            self._memory = self._kept.load()
        wishes = wishes_of(self._servers.registry.registered_models(), self._plan.rules)
        published = self._published.read()
        unwished = self._memory.origins.keys() - wishes.by_model.keys()
        self._unwished_since = {m: self._unwished_since.get(m, now) for m in unwished}
        return Seen(
            wishes=wishes,
            published=published,
            memory=self._memory,
            fingerprints=self._fingerprints.lately(
                wish for model, wish in wishes.by_model.items() if model in self._memory.failures
            ),
            running={model: job.task.wish for model, job in self.jobs.items()},
            unserved=self._readiness.unserved(
                {m: p.version for m, p in published.items() if p.version and p.is_proven}
            ),
            unwished_since=dict(self._unwished_since),
            now=now,
        )

    def _memory_of(self, seen: Seen) -> Memory:
        memory = self._memory or Memory()
        gone = memory.failures.keys() - still_failing(seen).keys()
        return memory.without_failures(frozenset(gone))

    def _remember(self, memory: Memory) -> None:
        self._memory = memory
        self._kept.keep(memory)

    def _start(self, found: Difference) -> None:
        exports = sum(not self._is_quick(job.task.wish) for job in self.jobs.values())
        quick = len(self.jobs) - exports
        for model, origin in found.retire.items():
            if model not in self.jobs and quick < _QUICK_JOBS:
                quick += 1
                self._begin(model, None, origin)
        for wish in found.promote:
            if exports >= self._plan.exports and quick >= _QUICK_JOBS:
                return
            if self._is_quick(wish):
                has_room, quick = quick < _QUICK_JOBS, quick + 1
            else:
                has_room, exports = exports < self._plan.exports, exports + 1
            if has_room:
                self._started_with[wish.model] = self._fingerprints.now(wish)
                self._begin(wish.model, wish, None)

    def _is_quick(self, wish: Wish | None) -> bool:
        """Whether it needs no export."""
        if wish is None:
            return True
        key = f"{wish.model}/releases/{wish.version}/release.json"
        return self._servers.journal.store.head(key) is not None

    def _begin(self, model: str, wish: Wish | None, origin: Origin | None) -> None:
        task = Task(
            model=model,
            wish=wish,
            origin=origin,
            settings=self._plan.settings_for(model),
            number=uuid.uuid4().hex[:12],
        )
        self.jobs[model] = self._workshop.start(task)
        self._event(STARTED, self.jobs[model])

    def _cancel(self, model: str, because: str) -> None:
        job = self.jobs[model]
        if not job.is_cancelled:
            job.cancel()
            self._event(CANCELLED, job, message=because)

    def _take_in(self) -> None:
        for model, job in list(self.jobs.items()):
            outcome = job.poll()
            if outcome is not None:
                del self.jobs[model]
                self._ended(model, job, outcome)

    def _ended(self, model: str, job: Job, outcome: Outcome) -> None:
        self._published.forget([model])
        self._readiness.forget(model)
        memory = self._memory or Memory()
        wish = job.task.wish
        if outcome.is_success:
            if wish is None:
                memory = memory.without(model)
            else:
                origin = Origin(registered_model=wish.registered_model, alias=wish.alias)
                memory = memory.with_origin(model, origin)
        elif outcome.kind != INTERRUPTED and wish is not None:
            failure = failure_after(
                memory.failures.get(model),
                wish,
                self._started_with[model],
                outcome,
                time.time(),
            )
            memory = memory.with_failure(model, failure)
        self._memory = memory
        self._event(
            ENDED,
            job,
            outcome=outcome.kind,
            message=outcome.message,
            hint=outcome.hint,
            stages=outcome.seconds,
        )

    def _tell_changes(self, found: Difference) -> None:
        """Tell the states that no work announces, when they begin."""
        for standing in found.standings:
            before = self._standings.get(standing.model)
            was = before.state if before else SERVING
            if standing.state not in {was, *_TOLD_BY_WORK} and standing.model not in self.jobs:
                event = Event(
                    kind=STANDING,
                    at=time.time(),
                    model=standing.model,
                    wish=str(standing.wish or ""),
                    outcome=standing.state,
                    message=standing.reason,
                )
                self._tell(event)
        self._standings = {standing.model: standing for standing in found.standings}

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


def is_at_rest(found: Difference, jobs: Mapping[str, Job]) -> bool:
    """Whether nothing is under way and nothing is due now."""
    return not (jobs or found.promote or found.retire)
