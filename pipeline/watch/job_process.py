"""The process that does one piece of work, and tells the watcher how it goes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from pipeline.errors import RequestError, TritonpipeError
from pipeline.flows.children import fork_from
from pipeline.flows.progress import Describe
from pipeline.flows.promote import promote
from pipeline.flows.retire import retire
from pipeline.watch.memory import Origin
from pipeline.watch.outcomes import BUG, INTERRUPTED, Outcome
from pipeline.watch.tasks import Begun, Passed, Task, Unanswered, Warned

UNWANTED = Outcome(kind=INTERRUPTED, message="ended because it was no longer wanted")


def work(
    task: Task, sender: Connection, lifeline: Connection, zygote: socket.socket | None
) -> None:
    """Do a task; what happens is sent in the words of :mod:`pipeline.watch.tasks`.

    The last thing that is sent is an :class:`Outcome`. SIGTERM ends it as Ctrl-C ends a command.

    Args:
        task: What to do.
        sender: Where to send.
        lifeline: Says nothing; its end is the watcher's.
        zygote: What children are forked from; None where each is an interpreter of its own.
    """
    # Ctrl-C in a terminal goes to the watcher alone, which knows what to do with each job.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = None
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    voice = _Voice(sender)
    if zygote is not None:
        fork_from(zygote, unanswered=lambda: voice.send(Unanswered()))
    logging.getLogger("pipeline").addHandler(voice)
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        outcome = _outcome_of(task, voice.progress)
        # Nothing may come between the outcome and its telling.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except KeyboardInterrupt:  # it came between two of these statements
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        outcome = UNWANTED
    voice.send(outcome)


class _Voice(logging.Handler):
    """Sends stages and warnings; to a watcher that is gone, nothing."""

    def __init__(self, sender: Connection) -> None:
        super().__init__(logging.WARNING)
        self._sender = sender
        # Reentrant: interrupted while it sends, the main thread still has an outcome to send.
        self._is_free = threading.RLock()

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line of the log."""
        self.send(Warned(record.getMessage()))

    def send(self, news: object) -> None:
        """Send one thing; threads that warn do not mix their words."""
        with self._is_free, suppress(OSError):
            self._sender.send(news)

    @contextmanager
    def progress(self, stage: str) -> Iterator[Describe]:
        """Tell of a stage."""
        text = ""

        def describe(words: str) -> None:
            nonlocal text
            text = words

        self.send(Begun(stage))
        begun = time.perf_counter()
        try:
            yield describe
        finally:
            self.send(Passed(stage, time.perf_counter() - begun, text))


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
        return UNWANTED
    except Exception as error:  # noqa: BLE001  a bug must not end the loop, nor be lost
        return Outcome(kind=BUG, message=f"{type(error).__name__}: {error}", hint="please report")
    return Outcome(kind=result.outcome)


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
