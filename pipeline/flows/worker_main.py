"""The child process that runs other people's code: loading a model, exporting it, running it.

Started by :mod:`pipeline.flows.worker` with the file of a job. Limits and walls stand before
anything of the model is touched. What happened is written to a file; what the model prints goes to
the log of this process and is never taken for an answer.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import Export, Report, SourceModel
from pipeline.checks.tolerances import Tolerances
from pipeline.flows.failures import Failure, failure_of
from pipeline.flows.isolation import Entered, Level, enter
from pipeline.flows.limits import Limits, impose
from pipeline.flows.pins import described, differences
from pipeline.plugins import load_kind
from pipeline.serialization import from_json, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """Export a model with one kind of exporter into an empty folder."""

    source: SourceModel
    exporter: str
    destination: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckJob:
    """Run an exported model and compare with the predictions of its source.

    Attributes:
        export: The model and the predictions.
        tolerances: How far it may be from them.
        max_batch_size: The largest batch that the server forms.
        cases: Folder for the inputs on which it fails.
    """

    export: Export
    tolerances: Tolerances
    max_batch_size: int
    cases: Path


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

    @property
    def writes(self) -> tuple[Path, ...]:
        """The folders that the parent takes over afterwards."""
        exported = () if self.export is None else (self.export.destination,)
        return exported if self.check is None else (*exported, self.check.cases)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the child writes: one of the results, or how it failed, and what is worth knowing."""

    export: Export | None = None
    report: Report | None = None
    failure: Failure | None = None
    notes: tuple[str, ...] = ()


def main(job_file: str) -> None:
    """Do the job; a failure that is nobody's fault here ends with a traceback and status 1."""
    job: Job = from_json(Job, json.loads(Path(job_file).read_text(encoding="utf-8")))
    impose(job.limits)
    model = job.export.source.path if job.export is not None else None
    entered = Entered(level=Level())
    try:
        entered = _enter(job)
        outcome = dataclasses.replace(_do(job), notes=_notes(entered, model))
    except Exception as error:
        failure = failure_of(
            error, subject=job.subject, limits=job.limits, entered=entered, model=model
        )
        if failure is None:
            raise
        outcome = Outcome(failure=failure, notes=_notes(entered, None))
    job.result.write_text(json.dumps(to_json(outcome)), encoding="utf-8")


def _enter(job: Job) -> Entered:
    """Leave everything behind that the job does not name; what may be written are two folders."""
    return enter(
        job.limits.isolation,
        parent=job.parent,
        writable=(job.result.parent, *job.writes),
        readable=set(_files(job)),
    )


def _notes(entered: Entered, model: Path | None) -> tuple[str, ...]:
    """What somebody should know although it worked."""
    notes = [entered.told]
    if model is not None:
        notes += [described([found]) for found in differences(model) if found.is_major]
    return tuple(note for note in notes if note)


def _do(job: Job) -> Outcome:
    if job.export is not None:
        exporter: Any = load_kind("exporters", job.export.exporter)()
        exported = exporter.export(job.export.source, job.export.destination)
        from pipeline.exporters.answers import keep_answers

        return Outcome(export=keep_answers(exported, job.export.source, job.export.destination))
    if job.check is None:
        raise ValueError("the job asks for nothing")
    from pipeline.checks.gate import check_export

    report = check_export(
        job.check.export,
        tolerances=job.check.tolerances,
        max_batch_size=job.check.max_batch_size,
        cases=job.check.cases,
    )
    return Outcome(report=report)


def _files(value: Any) -> Iterator[Path]:
    """All paths that a job names."""
    if isinstance(value, Path):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _files(getattr(value, field.name))
    elif isinstance(value, tuple):
        for item in value:
            yield from _files(item)


if __name__ == "__main__":
    main(sys.argv[1])
