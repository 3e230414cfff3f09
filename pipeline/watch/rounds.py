"""One round after the other: read, compare, act; and take in how work ended."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from pipeline.artifacts import ModelVersion
from pipeline.flows.servers import Servers
from pipeline.settings import Settings
from pipeline.watch.difference import (
    PENDING,
    PROMOTING,
    REFUSED,
    RETIRING,
    RETRYING,
    SERVING,
    Difference,
    Policy,
    Seen,
    Standing,
    difference,
    is_fulfilled,
    still_failing,
    still_served,
)
from pipeline.watch.events import STANDING, Event, Tell
from pipeline.watch.jobs import Job, Workshop
from pipeline.watch.memory import Memory, MemoryStore, Origin
from pipeline.watch.outcomes import (
    INTERRUPTED,
    conditions_of,
    failure_after,
    fingerprint_of,
)
from pipeline.watch.published import PublishedModels
from pipeline.watch.readiness import Readiness
from pipeline.watch.recorded import Reasons, Recorded
from pipeline.watch.tasks import Task
from pipeline.watch.versions import Versions
from pipeline.watch.wishes import Rule, Wish, wishes_of
from pipeline.watch.work import Work

_TOLD_BY_WORK: Final = frozenset({PENDING, PROMOTING, SERVING, RETRYING, RETIRING})

DEFAULT_EXPORTS: Final = max(1, (os.cpu_count() or 2) // 2)

_QUICK_JOBS: Final = 8
"""Versions whose release is recorded need no export: so many of them are served at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a watcher is to look after, and how.

    Attributes:
        rules: Which registered models, under which names, and how.
        only: A rule that a registered model must fit as well, whatever it says otherwise.
        base: The settings of what has no rule any more.
        policy: What happens when an alias is removed.
        exports: How many models are exported at once.
        name: Of those who look after the same models: they share the lead and what is remembered.
    """

    rules: tuple[Rule, ...]
    only: Rule
    base: Settings
    policy: Policy
    exports: int
    name: str


class Rounds:
    """The state between rounds: work under way, and what is remembered.

    Args:
        servers: Registry, repository and Tritons.
        plan: What to look after; another one counts from the next round on.
        workshop: Starts the work.
        tell: Told what happens.
    """

    def __init__(self, servers: Servers, plan: Plan, workshop: Workshop, tell: Tell) -> None:
        self._servers = servers
        self.plan = plan
        self._tell = tell
        self._kept = MemoryStore(servers.journal.store, plan.name)
        self._memory: Memory | None = None
        self._published = PublishedModels(servers.repository, servers.journal)
        self._readiness = Readiness(servers.replicas)
        self._versions = Versions(servers.registry)
        self._recorded = Recorded(servers.registry)
        self._reasons = Reasons(servers.registry, self._versions, tell)
        self._unreleased: set[Wish] = set()
        self._rules: Mapping[str, Rule] = {}
        self._unwished_since: dict[str, float] = {}
        self._standings: dict[str, Standing] = {}
        self.work = Work(workshop, tell)

    def step(self, *, is_notified: bool = False) -> Difference:
        """One round; returns what it saw and decided.

        Args:
            is_notified: Whether somebody said that something has changed.

        Raises:
            TritonpipeError: A source did not answer: nothing was started, work under way goes on.
        """
        if is_notified:
            self._versions.forget()
            self._recorded.forget()
        self._take_in()
        seen = self._look()
        found = difference(seen, self.plan.policy)
        self._remember(self._memory_of(seen))
        due = self._due(found)
        for model, because in found.cancel.items():
            self.work.cancel(model, because)
        for task, fingerprint in due:
            self._unreleased -= {task.wish}
            self.work.begin(task, fingerprint)
        self._tell_changes(found)
        self._explain(found)
        return found

    def settle(self) -> None:
        """Take in what ended, without looking at anything else."""
        self._take_in()
        if self._memory is not None:
            self._remember(self._memory)

    def _look(self) -> Seen:
        now = time.time()
        if self._memory is None:
            self._memory = self._kept.load()
        models = self._servers.registry.registered_models()
        wishes = wishes_of(models, self.plan.rules, only=self.plan.only)
        self._rules = wishes.rules
        self._versions.keep_only(frozenset(wishes.by_model.values()))
        published = self._published.read()
        unwished = self._memory.origins.keys() - wishes.by_model.keys()
        self._unwished_since = {m: self._unwished_since.get(m, now) for m in unwished}
        fulfilled = {
            model: wish
            for model, wish in wishes.by_model.items()
            if model in published and is_fulfilled(wish, published[model])
        }
        unserved = self._readiness.unserved(
            {m: p.version for m, p in published.items() if p.version and p.is_proven}
        )
        return Seen(
            wishes=wishes,
            published=published,
            memory=self._memory,
            fingerprints={
                model: self._fingerprint(wish, self._versions.wished(wish))
                for model, wish in wishes.by_model.items()
                if model in self._memory.failures
            },
            unmet={
                model: self._versions.unmet(wish, wishes.rules[model])
                for model, wish in wishes.by_model.items()
                if model not in fulfilled
            },
            running={model: job.task.wish for model, job in self.work.jobs.items()},
            unserved=unserved,
            doubted=self._readiness.doubted,
            unrecorded=self._recorded.unrecorded(
                {m: wish for m, wish in fulfilled.items() if m not in self.work.jobs}
            ),
            unwished_since=dict(self._unwished_since),
            now=now,
        )

    def _memory_of(self, seen: Seen) -> Memory:
        memory = self._memory or Memory()
        gone = memory.failures.keys() - still_failing(seen).keys()
        origins = still_served(seen, self.plan.policy)
        return replace(memory.without_failures(frozenset(gone)), origins=origins)

    def _remember(self, memory: Memory) -> None:
        self._memory = memory
        self._kept.keep(memory)

    def _fingerprint(self, wish: Wish, version: ModelVersion | None) -> str:
        return fingerprint_of(wish, version, conditions_of(self._rules[wish.model].settings))

    def _due(self, found: Difference) -> list[tuple[Task, str]]:
        """The work that there is room for, with the fingerprint of its wish; starts nothing."""
        due: list[tuple[Task, str]] = []
        exports = sum(job.is_exporting for job in self.work.jobs.values())
        quick = len(self.work.jobs) - exports
        for model, origin in found.retire.items():
            if model not in self.work.jobs and quick < _QUICK_JOBS:
                quick += 1
                due.append(self._task(model, None, origin))
        self._unreleased &= set(found.promote)
        for wish in found.promote:
            if exports >= self.plan.exports and quick >= _QUICK_JOBS:
                break
            needs_export = self._needs_export(wish)
            if needs_export:
                has_room, exports = exports < self.plan.exports, exports + 1
            else:
                has_room, quick = quick < _QUICK_JOBS, quick + 1
            if has_room:
                due.append(self._task(wish.model, wish, None, needs_export=needs_export))
        return due

    def _needs_export(self, wish: Wish) -> bool:
        """Whether no release of the version is recorded; asked once while it waits for room."""
        if wish not in self._unreleased:
            key = f"{wish.model}/releases/{wish.version}/release.json"
            if self._servers.journal.store.head(key) is not None:
                return False
            self._unreleased.add(wish)
        return True

    def _task(
        self, model: str, wish: Wish | None, origin: Origin | None, *, needs_export: bool = False
    ) -> tuple[Task, str]:
        fingerprint = ""
        if wish is not None:
            fingerprint = self._fingerprint(wish, self._versions.wished_now(wish))
        task = Task(
            model=model,
            wish=wish,
            origin=origin,
            settings=self._rules[model].settings if wish else self.plan.base,
            number=uuid.uuid4().hex[:12],
            needs_export=needs_export,
        )
        return task, fingerprint

    def _take_in(self) -> None:
        """Remember how work ended."""
        for ended in self.work.ended():
            model, wish, outcome = ended.task.model, ended.task.wish, ended.outcome
            self._published.forget([model])
            self._readiness.forget(model)
            memory = self._memory or Memory()
            if outcome.is_success and wish is None:
                memory = memory.without(model)
            elif outcome.is_success and wish is not None:
                origin = Origin(registered_model=wish.registered_model, alias=wish.alias)
                memory = memory.with_origin(model, origin)
                self._recorded.add(wish)
            elif outcome.kind != INTERRUPTED:
                known = memory.failures.get(model)
                failure = failure_after(known, wish, ended.fingerprint, outcome, time.time())
                memory = memory.with_failure(model, failure)
                self._readiness.doubt(model)
            self._memory = memory

    def _explain(self, found: Difference) -> None:
        """Let the registry say why something is not tried again."""
        failures = self._memory.failures if self._memory else {}
        self._reasons.explain(
            {
                standing.wish: failures[standing.model]
                for standing in found.standings
                if standing.state == REFUSED and standing.wish and standing.model in failures
            }
        )

    def _tell_changes(self, found: Difference) -> None:
        """Tell the states that no work announces, when they begin."""
        for standing in found.standings:
            before = self._standings.get(standing.model)
            was = before.state if before else SERVING
            if standing.state not in {was, *_TOLD_BY_WORK} and standing.model not in self.work.jobs:
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


def is_at_rest(found: Difference, jobs: Mapping[str, Job]) -> bool:
    """Whether nothing is under way and nothing is due now."""
    return not (jobs or found.promote or found.retire)
