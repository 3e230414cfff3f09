"""The child process that runs other people's code: loading a model, exporting it, running it.

Started by :mod:`pipeline.flows.worker` with the file of a job. Limits are set before anything of
the model is touched. What happened is written to a file; what the model prints goes to the log of
this process and is never taken for an answer.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline import errors
from pipeline.artifacts import Export, OnnxModel, Report, SourceModel
from pipeline.plugins import load_kind
from pipeline.serialization import from_json, to_json

_PARENT_DEATH_SIGNAL: Final = 1
"""``PR_SET_PDEATHSIG`` of ``prctl(2)``."""

LIMITS_HINT: Final = "load and convert the model by hand and watch what it does and uses"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child may use before it is ended.

    Attributes:
        seconds: Time on the clock.
        cpu_seconds: Processor time of all threads together.
        memory_bytes: Writable memory of each process.
        file_bytes: Size of each file that it writes.
    """

    seconds: float = 900.0
    cpu_seconds: int = 3600
    memory_bytes: int = 16 * 2**30
    file_bytes: int = 8 * 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """Export a model with one kind of exporter into an empty folder."""

    source: SourceModel
    exporter: str
    destination: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckJob:
    """Run an exported model and compare with the predictions of its source."""

    onnx: OnnxModel
    samples: Path
    samples_origin: str
    relative_tolerance: float
    absolute_tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the parent writes: one of the two jobs, and what it may use.

    Attributes:
        subject: What is being done to which model, the beginning of a sentence.
        result: Where the outcome goes.
        parent: Process id of the parent.
    """

    subject: str
    result: Path
    parent: int
    limits: Limits
    export: ExportJob | None = None
    check: CheckJob | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A :class:`pipeline.errors.TritonpipeError` on its way to the parent."""

    kind: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the child writes: one of the results, or how it failed."""

    export: Export | None = None
    report: Report | None = None
    failure: Failure | None = None


def main(job_file: str) -> None:
    """Do the job; a failure that is nobody's fault here ends with a traceback and status 1."""
    job: Job = from_json(Job, json.loads(Path(job_file).read_text(encoding="utf-8")))
    _die_with(job.parent)
    _limit(job.limits)
    try:
        outcome = _do(job)
    except Exception as error:
        outcome = Outcome(failure=_failure(error, job))
        if outcome.failure is None:
            raise
    job.result.write_text(json.dumps(to_json(outcome)), encoding="utf-8")


def _do(job: Job) -> Outcome:
    if job.export is not None:
        exporter: Any = load_kind("exporters", job.export.exporter)()
        exported = exporter.export(job.export.source, job.export.destination)
        from pipeline.exporters.answers import keep_answers

        return Outcome(export=keep_answers(exported, job.export.destination))
    if job.check is None:
        raise ValueError("the job asks for nothing")
    from pipeline.checks.parity import check_onnx
    from pipeline.samples import load_samples

    report = check_onnx(
        job.check.onnx,
        load_samples(job.check.samples),
        samples_origin=job.check.samples_origin,
        relative_tolerance=job.check.relative_tolerance,
        absolute_tolerance=job.check.absolute_tolerance,
    )
    return Outcome(report=report)


def _failure(error: Exception, job: Job) -> Failure | None:
    """The error that the parent raises; None for one that nobody expected."""
    exceeded = _exceeded(error, job.limits)
    if exceeded:
        return Failure(kind="ModelError", message=f"{job.subject} {exceeded}", hint=LIMITS_HINT)
    if isinstance(error, errors.TritonpipeError):
        return Failure(kind=type(error).__name__, message=error.message, hint=error.hint)
    return None


def _die_with(parent: int) -> None:
    """End with the parent even if that is killed without a chance to end its children."""
    ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        raise SystemExit("the parent process is gone")


def _limit(limits: Limits) -> None:
    for kind, soft, hard in (
        # The soft limit sends SIGXCPU, which the parent can tell from other deaths.
        (resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 5),
        (resource.RLIMIT_DATA, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        _, most = resource.getrlimit(kind)
        ceiling = most if most != resource.RLIM_INFINITY else hard
        resource.setrlimit(kind, (min(soft, ceiling), min(hard, ceiling)))


def _exceeded(error: BaseException, limits: Limits) -> str:
    """Which limit an error comes from, in words; empty if from none."""
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause)
        if isinstance(cause, MemoryError) or "can't allocate memory" in text or "bad_alloc" in text:
            return f"needs more than the {limits.memory_bytes / 2**30:.3g} GiB of memory allowed"
        if isinstance(cause, OSError) and cause.errno == errno.EFBIG:
            return f"wrote a file larger than the {limits.file_bytes / 2**30:.3g} GiB allowed"
        cause = cause.__cause__ or cause.__context__
    return ""


if __name__ == "__main__":
    main(sys.argv[1])
