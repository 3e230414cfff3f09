"""Work that a watcher starts: each promotion in a process of its own.

A promotion that crashes, grows or hangs takes nothing else with it, several run at once, and one
that is no longer wanted is ended as by Ctrl-C: what was served stays served, or is served again.
The processes are forked from one that has everything imported, so starting one takes milliseconds;
and so are the children in which they run a model's code, from another one that knows no credential.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from typing import Any, Final

from pipeline.watch.job_process import UNWANTED, work
from pipeline.watch.outcomes import DIED, Outcome
from pipeline.watch.tasks import Begun, Passed, Task, Unanswered, Warned
from pipeline.watch.zygotes import Zygotes

_PRELOADED: Final = (
    "pipeline.watch.job_process",
    "mlflow.tracking",
    "mlflow.tracking.request_header.registry",
    "pipeline.registries.mlflow",
    "pipeline.stores.s3",
    "onnx",
)
_BEFORE_EXPORTED: Final = frozenset({"start", "resolve", "fetch", "export", "check", "configure"})


class Job:
    """One process at work.

    Args:
        unanswered: Called when the process that its children are forked from hangs.

    Attributes:
        task: What it does.
        stage: Where it is.
        started: When it was, by the monotonic clock.
        seconds: How long each stage took that it has passed.
        is_cancelled: Whether it was told to end.
    """

    def __init__(
        self,
        task: Task,
        process: Any,
        receiver: Connection,
        lifeline: Connection,
        unanswered: Callable[[], None] = lambda: None,
    ) -> None:
        self.task = task
        self.stage = "start"
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}
        self.is_cancelled = False
        self._process = process
        self._receiver = receiver
        self._lifeline = lifeline
        self._unanswered = unanswered
        self._outcome: Outcome | None = None
        self._is_silent = False
        self._untold: list[Passed | Warned] = []

    @property
    def ready(self) -> tuple[Any, ...]:
        """What becomes readable when there is news; for :func:`multiprocessing.connection.wait`."""
        return (
            (self._process.sentinel,)
            if self._is_silent
            else (self._receiver, self._process.sentinel)
        )

    @property
    def is_exporting(self) -> bool:
        """Whether it may take processors of others; what comes after the export is waiting."""
        return self.task.needs_export and self.stage in _BEFORE_EXPORTED

    def cancel(self) -> None:
        """End it as by Ctrl-C; it takes the time that the way back takes."""
        if not self.is_cancelled:
            self.is_cancelled = True
            self._process.terminate()

    def take_in(self) -> bool:
        """Take in its news; whether they change what others may do."""
        was_exporting = self.is_exporting
        self._listen()
        return self.is_exporting != was_exporting or not self._process.is_alive()

    def _listen(self) -> None:
        try:
            while not self._is_silent and self._receiver.poll():
                self._hear(self._receiver.recv())
        except (EOFError, OSError):
            self._is_silent = True

    def _hear(self, news: Begun | Passed | Warned | Unanswered | Outcome) -> None:
        match news:
            case Begun():
                self.stage = news.stage
            case Outcome():
                self._outcome = news
            case Passed():
                self.seconds[news.stage] = self.seconds.get(news.stage, 0.0) + news.seconds
                self._untold.append(news)
            case Warned():
                self._untold.append(news)
            case Unanswered():
                self._unanswered()

    def untold(self) -> list[Passed | Warned]:
        """What it has said since the last call, as far as it was taken in."""
        untold, self._untold = self._untold, []
        return untold

    def poll(self) -> Outcome | None:
        """Take in its news; how it ended, or None while it is at work."""
        self.take_in()
        return None if self._process.is_alive() else self._end()

    def _end(self) -> Outcome:
        self._process.join()
        self._listen()  # it may have spoken after we listened, and before it ended
        code = self._process.exitcode
        self._receiver.close()
        self._lifeline.close()
        if self._outcome is not None:
            return self._outcome
        if self.is_cancelled:
            return UNWANTED
        how = f"signal {-code} ({signal.strsignal(-code)})" if code < 0 else f"exit code {code}"
        return Outcome(
            kind=DIED,
            message=f"the process that served {self.task.wish or self.task.model} died by {how} "
            f"in stage {self.stage}",
            hint="the kernel's log tells whether memory ran out",
        )


class Workshop:
    """Starts jobs; holds the processes that they and their children are forked from."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(_PRELOADED))
        self._zygotes = Zygotes()

    def warm_up(self) -> None:
        """Have everything imported by the time of the first job; returns at once."""
        ensure_running()
        self._zygotes.ready()

    def close(self) -> None:
        """End what children are forked from; no job is at work any more."""
        self._zygotes.close()

    def start(self, task: Task) -> Job:
        """Start one."""
        ensure_running()
        zygote = self._zygotes.ready()
        receiver, sender = self._context.Pipe(duplex=False)
        listened, lifeline = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=work,
            args=(task, sender, listened, zygote and zygote.requests),
            name=task.number,
            daemon=True,
        )
        process.start()
        sender.close()
        listened.close()

        def unanswered() -> None:
            if zygote is not None:
                self._zygotes.unanswered(zygote)

        return Job(task, process, receiver, lifeline, unanswered)
