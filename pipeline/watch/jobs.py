"""Work that a watcher starts: each promotion in a process of its own.

A promotion that crashes, grows or hangs takes nothing else with it, several run at once, and one
that is no longer wanted is ended as by Ctrl-C: what was served stays served, or is served again.
The processes are forked from one that has everything imported, so starting one takes milliseconds;
and so are the children in which they run a model's code, from another one that knows no credential.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.forkserver import ensure_running
from types import FrameType
from typing import Any, Final

from pipeline.errors import RequestError, TritonpipeError
from pipeline.flows.children import fork_from
from pipeline.flows.progress import Describe
from pipeline.flows.promote import promote
from pipeline.flows.retire import retire
from pipeline.flows.zygote import Zygote
from pipeline.settings import Settings
from pipeline.watch.memory import Origin
from pipeline.watch.outcomes import BUG, DIED, INTERRUPTED, Outcome
from pipeline.watch.wishes import Wish

_PRELOADED: Final = (
    "pipeline.watch.jobs",
    "mlflow.tracking",
    "mlflow.tracking.request_header.registry",
    "pipeline.registries.mlflow",
    "pipeline.stores.s3",
    "onnx",
)
_STAGE: Final = "stage"
_OUTCOME: Final = "outcome"
_BEFORE_EXPORTED: Final = frozenset({"start", "resolve", "fetch", "export", "check", "configure"})
_INTERRUPTED: Final = Outcome(kind=INTERRUPTED, message="ended because it was no longer wanted")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one process is to do: fulfil a wish, or take a model away.

    Attributes:
        model: Name in Triton.
        wish: The wish; None to take the model away.
        origin: On whose behalf the model was served; None for a wish.
        settings: Those that hold for this model.
        number: Names this piece of work in logs, metrics and traces.
        needs_export: Whether no release of the version is recorded yet.
    """

    model: str
    wish: Wish | None
    settings: Settings
    number: str
    origin: Origin | None = None
    needs_export: bool = False


class Job:
    """One process at work."""

    def __init__(
        self, task: Task, process: Any, receiver: Connection, lifeline: Connection
    ) -> None:
        self.task = task
        self.stage = "start"
        self.started = time.monotonic()
        self.is_cancelled = False
        self._process = process
        self._receiver = receiver
        self._lifeline = lifeline
        self._outcome: Outcome | None = None
        self._is_silent = False

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
        try:
            while self._receiver.poll():
                kind, value = self._receiver.recv()
                if kind == _STAGE:
                    self.stage = value
                else:
                    self._outcome = value
        except (EOFError, OSError):
            self._is_silent = True
        return self.is_exporting != was_exporting or not self._process.is_alive()

    def poll(self) -> Outcome | None:
        """Take in its news; how it ended, or None while it is at work."""
        self.take_in()
        return None if self._process.is_alive() else self._end()

    def _end(self) -> Outcome:
        self._process.join()
        code = self._process.exitcode
        self._receiver.close()
        self._lifeline.close()
        if self._outcome is not None:
            return self._outcome
        if self.is_cancelled:
            return _INTERRUPTED
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
        self._zygote: Zygote | None = None

    def warm_up(self) -> None:
        """Have everything imported by the time of the first job; returns at once."""
        ensure_running()
        if self._zygote is not None and not self._zygote.is_alive:
            self._zygote.close()  # its libraries are older than those that are installed now
            self._zygote = None
        if self._zygote is None:
            with suppress(OSError):  # without it, children are interpreters of their own
                self._zygote = Zygote()

    def close(self) -> None:
        """End what children are forked from; no job is at work any more."""
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None

    def start(self, task: Task) -> Job:
        """Start one."""
        self.warm_up()
        receiver, sender = self._context.Pipe(duplex=False)
        listened, lifeline = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_main,
            args=(task, sender, listened, self._zygote and self._zygote.requests),
            name=task.number,
            daemon=True,
        )
        process.start()
        sender.close()
        listened.close()
        return Job(task, process, receiver, lifeline)


def await_news(jobs: list[Job], wake: Connection, seconds: float | None) -> None:
    """Return when a job has ended or leaves room for another, when woken, or after some seconds."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        waited = [each for job in jobs for each in job.ready]
        ready = wait_for([wake, *waited], timeout=left)
        if not ready or wake in ready or sum(job.take_in() for job in jobs):
            return


def _main(
    task: Task, sender: Connection, lifeline: Connection, zygote: socket.socket | None
) -> None:
    # Ctrl-C in a terminal goes to the watcher alone, which knows what to do with each job.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = None
    if zygote is not None:
        fork_from(zygote)
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()

    @contextmanager
    def progress(stage: str) -> Iterator[Describe]:
        sender.send((_STAGE, stage))
        yield lambda _text: None

    try:
        signal.signal(signal.SIGTERM, _interrupt)
        outcome = _outcome_of(task, progress)
        # Nothing may come between the outcome and its telling.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except KeyboardInterrupt:  # it came between two of these statements
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        outcome = _INTERRUPTED
    with suppress(OSError):  # the watcher is gone
        sender.send((_OUTCOME, outcome))


def _outcome_of(task: Task, progress: Callable[[str], Any]) -> Outcome:
    try:
        if task.wish is None:
            with suppress(RequestError):  # somebody else has taken it away
                retire(task.model, task.settings, reason=_reason(task.origin), progress=progress)
            return Outcome(kind="retired")
        result = promote(task.wish.request(), task.settings, progress=progress)
    except TritonpipeError as error:
        return Outcome(kind=type(error).__name__, message=error.message, hint=error.hint)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001  a bug must not end the loop, nor be lost
        return Outcome(kind=BUG, message=f"{type(error).__name__}: {error}", hint="please report")
    return Outcome(kind=result.outcome, seconds=result.seconds)


def _reason(origin: Origin | None) -> str:
    return f"{origin.registered_model}@{origin.alias} is no longer wished" if origin else ""


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_with(lifeline: Connection) -> None:
    """End, in good order, when the watcher is gone: nobody would hear of the outcome."""
    try:
        lifeline.recv()
    except (EOFError, OSError):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
