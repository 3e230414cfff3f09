"""Follows the repository: one listing per look, and a job for each model that differs.

A look never fails: what the store does wrong is counted and told, and the next look tries again.
Jobs on several models run side by side, and a look does not wait for them, so a large download
holds up nobody else.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future, wait
from pathlib import Path
from typing import Final

from pipeline.errors import RefusedError, SettingsError, TritonpipeError
from pipeline.mirror.advance import Advance, Rules
from pipeline.mirror.listing import ListedModel, listed_models
from pipeline.mirror.local import LocalRepository
from pipeline.mirror.plan import ModelPlan, plan_model
from pipeline.mirror.records import ModelRecord
from pipeline.mirror.remote import Remote
from pipeline.mirror.status import MirrorStatus, ModelStatus
from pipeline.mirror.troubles import Trouble, Troubles
from pipeline.model_config import CONFIG_NAME

Tell = Callable[[str], None]
"""Called with a sentence when something changed or went wrong; from any thread."""

_EMPTY: Final = "the listing of the repository is empty"
_SLOW_LISTING: Final = 10.0
"""Seconds after which a listing without an answer counts as being behind."""

_logger = logging.getLogger(__name__)


class Follower:
    """One mirror; call :meth:`start` once, then :meth:`look` as often as wished."""

    def __init__(
        self,
        remote: Remote,
        local: LocalRepository,
        advance: Advance,
        rules: Rules,
        *,
        jobs: Executor,
        tell: Tell,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._remote = remote
        self._local = local
        self._advance = advance
        self._rules = rules
        self._jobs = jobs
        self._tell = tell
        self._changed = changed
        self._lock = threading.Lock()
        self._records: dict[str, ModelRecord] = {}
        self._troubles = Troubles(rules)
        self._running: dict[str, Future[None]] = {}
        self._absent: Counter[str] = Counter()
        self._failing = ""
        self._problem = "the store was not listed yet"
        self._last_success: float | None = None
        self._behind_since: float | None = time.time()
        self._asked_at: float | None = None

    @property
    def repository(self) -> Path:
        """What Triton is pointed at."""
        return self._local.repository

    def start(self, *, read_digests: bool) -> None:
        """Find out what is in place, without asking the store.

        Args:
            read_digests: Read every byte, also of files that look as when they were verified.
        """
        for model in sorted(self._local.models()):
            record = self._advance.verified_record(
                model, self._local.record(model), read_digests=read_digests
            )
            self._records[model] = record
            if not record.named:
                self._tell(f"{model}: what is in place is damaged; it is fetched again")

    def look(self) -> None:
        """Take one listing and start what follows from it."""
        self._asked_at = time.time()
        try:
            objects = self._remote.list()
        except TritonpipeError as error:
            self._fail(_reason(error), error.message)
            return
        finally:
            self._asked_at = None
        if not objects:
            # A store that lost everything and a mistyped prefix look the same: nothing follows.
            self._fail("empty", f"{_EMPTY}: {self._remote.url}")
            return
        if self._failing:
            self._tell("the store can be listed again")
        self._failing, self._problem, self._last_success = "", "", time.time()
        listed = listed_models(objects)
        for name in sorted({*self.records(), *self._troubles.all(), *listed}):
            self._consider(name, listed.get(name))
        self._note_whether_behind()

    def settle(self) -> None:
        """Wait for the jobs that run."""
        with self._lock:
            running = list(self._running.values())
        wait(running)
        self._note_whether_behind()

    def records(self) -> dict[str, ModelRecord]:
        """What is in place now."""
        with self._lock:
            return dict(self._records)

    def status(self) -> MirrorStatus:
        """What is in place, and what is not as it should be."""
        records, troubles = self.records(), self._troubles.all()
        traffic = self._remote.traffic
        now, since = time.time(), self._behind_since
        if since is None and self._asked_at is not None and now - self._asked_at > _SLOW_LISTING:
            since = self._asked_at
        return MirrorStatus(
            url=self._remote.url,
            repository=self._local.repository,
            last_success=self._last_success,
            seconds_behind=0.0 if since is None else max(0.0, now - since),
            problem=self._problem,
            failures=self._troubles.failures(),
            requests=traffic.requests,
            bytes=traffic.bytes,
            free_bytes=self._local.free_bytes(),
            models=tuple(
                _model_status(name, records.get(name, ModelRecord()), troubles.get(name))
                for name in sorted(records.keys() | troubles.keys())
            ),
        )

    def _consider(self, name: str, found: ListedModel | None) -> None:
        """Start a job for a model if it needs one and none runs."""
        with self._lock:
            if name in self._running:
                return
            record = self._records.get(name, ModelRecord())
        if found is None:
            if name not in self._records:
                self._troubles.forgive(name)
                return
            self._absent[name] += 1
            if self._absent[name] >= self._rules.removal_listings:
                self._start(name, lambda: self._remove(name))
            return
        del self._absent[name]
        if self._is_due(record, found):
            self._start(name, lambda: self._move(record, found))
        elif self._advance.collectable(record):
            self._start(name, lambda: self._collect(name, record))

    def _is_due(self, record: ModelRecord, found: ListedModel) -> bool:
        if found.config is None and not record.named:
            return False  # an upload that was not committed yet
        if found.config == record.source:
            self._troubles.forgive(found.name)
            return False
        return not self._troubles.must_wait(found.name, found.fingerprint)

    def _start(self, name: str, job: Callable[[], None]) -> None:
        def run() -> None:
            try:
                job()
            except Exception as error:
                # Of one model only: the others go on, and what is served stays.
                _logger.exception("the mirror failed on %s", name)
                self._complain("bug", f"{name}: {type(error).__name__}: {error}")
            finally:
                with self._lock:
                    self._running.pop(name, None)

        with self._lock:
            # A placeholder, since the job may be over before its future is known.
            self._running[name] = Future()
        future = self._jobs.submit(run)
        with self._lock:
            if name in self._running:
                self._running[name] = future

    def _move(self, record: ModelRecord, found: ListedModel) -> None:
        try:
            plan = plan_model(self._remote, self._local, record, found, self._advance.seal_name)
            moved = self._advance.carry_out(plan, record)
        except (TritonpipeError, OSError) as error:
            self._local.clear_staging(found.name)
            self._note_trouble(found, _reason(error), str(error))
        else:
            self._keep(found.name, moved)
            self._troubles.forgive(found.name)
            if plan.missing or plan.is_new_config:
                self._tell(f"{found.name}: {_described(plan)}, {plan.size} bytes")
                self._changed()

    def _collect(self, name: str, record: ModelRecord) -> None:
        try:
            self._keep(name, self._advance.collect(name, record))
        except OSError as error:
            self._complain("disk", f"{name}: an old version cannot be removed: {error}")

    def _remove(self, name: str) -> None:
        """Remove a model that several listings lacked, if the store says so itself, too."""
        try:
            if self._remote.read(f"{name}/{CONFIG_NAME}") is not None:
                self._absent[name] = 0
                self._complain("listing", f"listings lack {name}, which is there")
                return
            self._local.remove_model(name)
        except (TritonpipeError, OSError) as error:
            self._complain(_reason(error), f"{name} is to be removed: {error}")
            return
        with self._lock:
            self._records.pop(name, None)
        self._troubles.forgive(name)
        self._absent.pop(name, None)
        self._tell(f"{name}: removed, since the store has nothing of it any more")
        self._changed()

    def _keep(self, name: str, record: ModelRecord) -> None:
        with self._lock:
            self._records[name] = record

    def _note_trouble(self, found: ListedModel, reason: str, text: str) -> None:
        if self._troubles.note(found.name, found.fingerprint, reason, text):
            self._tell(text)

    def _complain(self, reason: str, text: str) -> None:
        self._troubles.count(reason)
        self._tell(text)

    def _fail(self, reason: str, text: str) -> None:
        self._troubles.count(reason)
        if reason != self._failing:  # the words differ every time, by their numbers
            self._tell(f"{text}; what is served stays")
        self._failing, self._problem = reason, text
        self._behind_since = self._behind_since or time.time()

    def _note_whether_behind(self) -> None:
        # What is refused has a number of its own: one foreign entry must not hide a real delay.
        waiting = any(trouble.reason != "refused" for trouble in self._troubles.all().values())
        with self._lock:
            is_behind = bool(self._problem or self._running or waiting)
        if not is_behind:
            self._behind_since = None
        else:
            self._behind_since = self._behind_since or time.time()


def _model_status(name: str, record: ModelRecord, trouble: Trouble | None) -> ModelStatus:
    return ModelStatus(
        name=name,
        serving=record.named,
        versions=tuple(sorted(record.versions)),
        reason=trouble.reason if trouble else "",
        problem=trouble.text if trouble else "",
    )


def _described(plan: ModelPlan) -> str:
    versions = ", ".join(map(str, plan.named))
    if plan.named == plan.before:
        return f"{versions} with another config"
    return f"{versions} instead of {', '.join(map(str, plan.before)) or 'nothing'}"


def _reason(error: Exception) -> str:
    if isinstance(error, RefusedError):
        return "refused"
    if isinstance(error, SettingsError):
        return "denied"
    return "disk" if isinstance(error, OSError) else "unavailable"
