"""Drives a Triton in explicit mode, so that it serves what is in the local repository.

Level-triggered: every step compares what the server serves with what it should serve, so it does
not matter which of the two was restarted. A load runs in a thread of its own: a slow one holds up
no other model. One that fails is tried again, after longer and longer waits; meanwhile Triton
serves what it served before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from pipeline.errors import TritonpipeError
from pipeline.mirror.follow import Tell
from pipeline.mirror.records import ModelRecord
from pipeline.mirror.status import MirrorStatus, ModelStatus

_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_BUSY: Final = frozenset({"LOADING", "UNLOADING"})
_logger = logging.getLogger(__name__)


class Admin(Protocol):
    """What is asked of the server; see :class:`pipeline.mirror.admin.TritonAdmin`."""

    def index(self) -> Mapping[str, Mapping[int, str]]:
        """The state of every version, by model."""

    def load(self, model: str) -> None:
        """Load what the config names."""

    def unload(self, model: str) -> None:
        """Unload a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    content: tuple[object, ...]
    text: str
    wait: float
    retry_at: float


class Controller:
    """Makes one Triton serve the local repository; call :meth:`step` again and again."""

    def __init__(
        self,
        admin: Admin,
        records: Callable[[], Mapping[str, ModelRecord]],
        tell: Tell,
        *,
        spawn: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        self._admin = admin
        self._records = records
        self._tell = tell
        self._spawn = spawn or _in_a_thread
        self._lock = threading.Lock()
        self._loaded: dict[str, tuple[object, ...]] = {}
        self._failures: dict[str, _Failure] = {}
        self._running: set[str] = set()
        self._loads: Counter[str] = Counter()
        self._problem = ""

    def step(self) -> None:
        """Look at the server and start what is to be loaded or unloaded; never fails."""
        try:
            index = self._admin.index()
        except TritonpipeError as error:
            if error.message != self._problem:
                self._tell(error.message)
            self._problem = error.message
            return
        if self._problem:
            self._tell("Triton answers again")
        self._problem = ""
        records = {model: r for model, r in self._records().items() if r.named}
        for model, record in records.items():
            if self._is_due(model, record, index.get(model, {})):
                self._start(model, partial(self._load, model, _content(record)))
        for model, versions in index.items():
            if model not in records and "READY" in versions.values():
                self._start(model, partial(self._unload, model))

    def described(self, status: MirrorStatus) -> MirrorStatus:
        """The status of the mirror, with what Triton does not load."""
        with self._lock:
            failures, loads = dict(self._failures), dict(self._loads)
        return replace(
            status,
            loads=loads,
            problem=status.problem or self._problem,
            models=tuple(_with_failure(m, failures.get(m.name)) for m in status.models),
        )

    def _is_due(self, model: str, record: ModelRecord, states: Mapping[int, str]) -> bool:
        content = _content(record)
        is_served = all(states.get(version) == "READY" for version in record.named)
        with self._lock:
            if any(states.get(v) in _BUSY for v in record.named):
                return False
            failure = self._failures.get(model)
            if failure is not None and failure.content == content:
                return time.monotonic() >= failure.retry_at
            return not is_served or self._loaded.get(model) != content

    def _start(self, model: str, job: Callable[[], None]) -> None:
        def run() -> None:
            try:
                job()
            finally:
                with self._lock:
                    self._running.discard(model)

        with self._lock:
            if model in self._running:
                return
            self._running.add(model)
        self._spawn(run)

    def _load(self, model: str, content: tuple[object, ...]) -> None:
        try:
            self._admin.load(model)
        except TritonpipeError as error:
            self._note_failure(model, content, error.message)
            return
        with self._lock:
            self._loaded[model] = content
            self._failures.pop(model, None)
            self._loads["loaded"] += 1
        self._tell(f"{model}: loaded by Triton")

    def _unload(self, model: str) -> None:
        try:
            self._admin.unload(model)
        except TritonpipeError as error:
            self._tell(f"{model}: cannot be unloaded: {error.message}")
            return
        with self._lock:
            self._loaded.pop(model, None)
            self._failures.pop(model, None)
            self._loads["unloaded"] += 1
        self._tell(f"{model}: unloaded by Triton")

    def _note_failure(self, model: str, content: tuple[object, ...], text: str) -> None:
        with self._lock:
            before = self._failures.get(model)
            is_same = before is not None and before.content == content
            wait = min(2 * before.wait, _LONGEST_WAIT) if before and is_same else _FIRST_WAIT
            self._failures[model] = _Failure(
                content=content, text=text, wait=wait, retry_at=time.monotonic() + wait
            )
            self._loads["failed"] += 1
        if before is None or not is_same or before.text != text:
            self._tell(f"{model}: not loaded by Triton: {text}")


def control(
    controller: Controller, *, interval: float, wake: threading.Event, stop: threading.Event
) -> None:
    """Step every ``interval`` seconds, and at once when ``wake`` is set, until ``stop`` is."""
    while not stop.is_set():
        try:
            controller.step()
        except Exception:
            _logger.exception("a look at Triton failed")
        wake.wait(interval)
        wake.clear()


def _content(record: ModelRecord) -> tuple[object, ...]:
    """Changes whenever Triton has to look at the model again."""
    manifests = (record.versions[v].manifest_sha256 for v in record.named if v in record.versions)
    return (record.named, *manifests, record.newest_mtime_ns)


def _with_failure(status: ModelStatus, failure: _Failure | None) -> ModelStatus:
    if failure is None or status.reason:
        return status
    return replace(status, reason="load", problem=f"{status.name}: {failure.text}")


def _in_a_thread(job: Callable[[], None]) -> None:
    threading.Thread(target=job, daemon=True).start()
