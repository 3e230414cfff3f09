"""The process that publishes and is killed: one job through the flows, as a command runs it.

Started from a fork server, which has everything imported: a job then costs what its requests cost.
It is the only place of the proof that calls what publishes.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from pipeline.errors import ConflictError, TritonpipeError
from pipeline.flows.garbage import collect_garbage
from pipeline.flows.joint import release_together
from pipeline.flows.journal import PROMOTE, ROLLBACK
from pipeline.flows.progress import silent
from pipeline.flows.publication import Candidate, publish_and_serve
from pipeline.flows.publish import read_state
from pipeline.flows.release import recorded_release, reusable_release
from pipeline.flows.serve import serve
from pipeline.flows.servers import Servers, open_servers
from pipeline.settings import Settings, load_settings
from pipeline.testing.prove.entries import Recipe, make_candidate

KILLED: Final = "killed"
COLLECT: Final = "collect garbage"
RELEASE: Final = "release together"

SUCCEEDED: Final = "succeeded"
REFUSED: Final = "refused"
BUG: Final = "bug"

_PRELOADED: Final = (
    "pipeline.testing.prove.publisher",
    "mlflow.tracking",
    "pipeline.stores.objects",
    "onnx",
)
_PATIENCE: Final = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one run of the publisher is to do.

    Attributes:
        action: :data:`PROMOTE`, :data:`ROLLBACK`, :data:`RELEASE` or :data:`COLLECT`.
        recipes: The versions that it is about.
        confirm_seconds: How long the server may take to serve it.
    """

    action: str
    recipes: tuple[Recipe, ...]
    confirm_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run ended.

    Attributes:
        outcome: ``succeeded``, ``refused`` with an expected error, ``killed``, or ``bug``.
        words: The error, with its class; empty otherwise.
        seconds: How long it ran.
    """

    outcome: str
    words: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        return self.outcome + (f": {self.words}" if self.words else "")


class Publisher:
    """Starts a process for each job and tells how it ended."""

    def __init__(self, variables: Mapping[str, str], folder: Path) -> None:
        # Who is killed leaves temporary files behind.
        self._variables = {**variables, "TMPDIR": str(folder)}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(_PRELOADED))

    def start(self, job: Job, endpoint: str | None = None) -> Run:
        """Start a run; ``endpoint`` replaces the store's own address."""
        variables = self._variables | {
            "TRITONPIPE_CONFIRM_SECONDS": str(job.confirm_seconds),
            "TRITONPIPE_LOCK_SECONDS": "10",
        }
        if endpoint:
            variables["AWS_ENDPOINT_URL"] = endpoint
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_main, args=(job, variables, sender), daemon=True)
        process.start()
        sender.close()
        return Run(process, receiver)


class Run:
    """One process at work."""

    def __init__(self, process: Any, receiver: Connection) -> None:
        self._process = process
        self._receiver = receiver
        self._started = time.monotonic()

    @property
    def pid(self) -> int:
        """Its number."""
        return int(self._process.pid)

    def wait(self) -> Ending:
        """Return when it is over; one that does not end is killed and counts as a bug."""
        words = None
        try:
            if self._receiver.poll(_PATIENCE):
                words = self._receiver.recv()
        except EOFError:
            words = (KILLED, "")
        if words is None:
            self._process.kill()
            words = (BUG, f"did not end within {_PATIENCE:.0f} s")
        self._process.join()
        self._receiver.close()
        outcome, text = words
        return Ending(outcome=outcome, words=text, seconds=time.monotonic() - self._started)


def _main(job: Job, variables: Mapping[str, str], sender: Connection) -> None:
    os.environ.update(variables)
    tempfile.tempdir = None
    try:
        settings = load_settings()
        with open_servers(settings) as servers:
            _work(servers, job, settings)
    except TritonpipeError as error:
        sender.send((REFUSED, f"{type(error).__name__}: {error}"))
    except BaseException as error:  # noqa: BLE001  a bug is a result, too
        sender.send((BUG, f"{type(error).__name__}: {error}"))
    else:
        sender.send((SUCCEEDED, ""))


def _work(servers: Servers, job: Job, settings: Settings) -> None:
    """What the commands do with entries that are exported and checked."""
    if job.action == ROLLBACK:
        for recipe in job.recipes:
            _roll_back(servers, recipe, settings)
    elif job.action == COLLECT:
        models = [recipe.model for recipe in job.recipes]
        problems = [m.problem for m in collect_garbage(settings, models, keep=1) if m.problem]
        if problems:  # as the command, which ends with an error then
            raise ConflictError("; ".join(problems))
    elif job.action == RELEASE:
        _release(servers, job.recipes, settings)
    else:
        for recipe in job.recipes:
            _promote(servers, recipe, settings)


def _promote(servers: Servers, recipe: Recipe, settings: Settings) -> None:
    state = read_state(servers.repository, recipe.model)
    reusable = reusable_release(servers, state, recipe.version)
    with tempfile.TemporaryDirectory(prefix="tritonpipe-prove-") as folder:
        if reusable is None:
            candidate = make_candidate(recipe, Path(folder))
        else:
            release, golden = reusable
            candidate = Candidate(release=release, golden=golden, entry=None)
        publish_and_serve(
            servers, candidate, state, action=PROMOTE, settings=settings, progress=silent
        )


def _release(servers: Servers, recipes: tuple[Recipe, ...], settings: Settings) -> None:
    with ExitStack() as stack:
        folders = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tritonpipe-prove-")))
            for _recipe in recipes
        ]
        candidates = [make_candidate(r, f) for r, f in zip(recipes, folders, strict=True)]
        release_together(servers, candidates, action=PROMOTE, settings=settings, progress=silent)


def _roll_back(servers: Servers, recipe: Recipe, settings: Settings) -> None:
    lock = servers.locks.hold(recipe.model, seconds=settings.lock_seconds, tell=lambda _text: None)
    with lock as held:
        release, golden = recorded_release(servers, recipe.model, recipe.version)
        serve(
            servers,
            release,
            golden,
            held=held,
            action=ROLLBACK,
            seconds=settings.confirm_seconds,
            progress=silent,
        )
