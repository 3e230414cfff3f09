"""The child process that runs other people's code: loading a model, exporting it, running it.

Started by :mod:`pipeline.flows.worker` with the file of a job. Limits and walls stand before
anything of the model is touched. What happened is written to a file; what the model prints goes to
the log of this process and is never taken for an answer.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from pipeline.artifacts import Export, Report, SourceModel
from pipeline.checks.tolerances import Tolerances
from pipeline.flows.failures import Failure, failure_of
from pipeline.flows.inner_process import ModelPackages, entered_before, go_on_inside
from pipeline.flows.isolation import Entered, Level, enter
from pipeline.flows.limits import Limits, impose
from pipeline.flows.pins import WITH_ITS_OWN, described, differences
from pipeline.packed_models import PackedExport, PythonPackages
from pipeline.plugins import load_kind
from pipeline.serialization import from_json, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportJob:
    """Export a model with one kind of exporter into an empty folder.

    Attributes:
        source: The fetched model.
        exporter: Name of the exporter.
        destination: The folder.
        packages: With which packages; None for those that are installed here.
    """

    source: SourceModel
    exporter: str
    destination: Path
    packages: ModelPackages | None = None


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
class PackJob:
    """Pack a model with its packages into an empty folder.

    Attributes:
        source: The fetched model.
        packages: Its packages.
        destination: The folder.
        flavor: What the lineage calls it.
        load_seconds: How long a server may load it.
        request_seconds: How long it may take for an answer.
    """

    source: SourceModel
    packages: PythonPackages
    destination: Path
    flavor: str
    load_seconds: float
    request_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedCheckJob:
    """Run a packed model with its packages and compare; like a :class:`CheckJob`."""

    export: PackedExport
    tolerances: Tolerances
    max_batch_size: int
    cases: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the parent writes: one of the jobs, and what it may use.

    Attributes:
        subject: What is being done to which model, the beginning of a sentence.
        result: Where the outcome goes.
    """

    subject: str
    result: Path
    limits: Limits
    export: ExportJob | None = None
    check: CheckJob | None = None
    pack: PackJob | None = None
    packed_check: PackedCheckJob | None = None

    @property
    def writes(self) -> tuple[Path, ...]:
        """The folders that the parent takes over afterwards."""
        makes = (job.destination for job in (self.export, self.pack) if job is not None)
        checks = (job.cases for job in (self.check, self.packed_check) if job is not None)
        return (*makes, *checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the child writes: one of the results, or how it failed, and what is worth knowing."""

    export: Export | None = None
    packed: PackedExport | None = None
    report: Report | None = None
    failure: Failure | None = None
    notes: tuple[str, ...] = ()


def main(
    job_file: str, parent: int, entered_file: str = "", *, known: Entered | None = None
) -> None:
    """Do the job; a failure that is nobody's fault here is raised.

    Args:
        job_file: The job.
        parent: Process id of the parent, with which this process ends.
        entered_file: Of a process within the walls already, what it has left behind.
        known: Of a fork, what the process that it is a fork of knows of the walls.
    """
    job: Job = from_json(Job, json.loads(Path(job_file).read_text(encoding="utf-8")))
    model = job.export.source.path if job.export is not None else None
    packages = job.export.packages if job.export is not None else None
    entered = Entered(level=Level())
    try:
        if entered_file:
            entered = entered_before(Path(job_file), entered_file)
        else:
            impose(job.limits)
            entered = _enter(job, parent, known)
            if packages is not None:
                go_on_inside(packages, Path(job_file), entered)
                return
        outcome = dataclasses.replace(_do(job), notes=_notes(entered, model))
    except Exception as error:
        failure = failure_of(
            error, subject=job.subject, limits=job.limits, entered=entered, model=model
        )
        if failure is None:
            raise
        outcome = Outcome(failure=failure, notes=_notes(entered, None))
    job.result.write_text(json.dumps(to_json(outcome)), encoding="utf-8")


def run_and_exit(
    job_file: str, parent: int, entered_file: str = "", *, known: Entered | None = None
) -> NoReturn:
    """Do the job and end the process, with status 1 and a traceback if it failed unexpectedly.

    The arguments are those of :func:`main`. What a model leaves behind, such as threads, is not
    waited for.
    """
    code = 1
    try:
        main(job_file, parent, entered_file, known=known)
        code = 0
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:  # noqa: BLE001  the process ends with it
        traceback.print_exc()
    with suppress(Exception):  # the model may have closed them
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF)


def _enter(job: Job, parent: int, known: Entered | None) -> Entered:
    """Leave everything behind that the job does not name; what may be written are two folders."""
    return enter(
        job.limits.isolation,
        parent=parent,
        writable=(job.result.parent, *job.writes),
        readable=set(_files(job)),
        known=known,
    )


def _notes(entered: Entered, model: Path | None) -> tuple[str, ...]:
    """What somebody should know although it worked."""
    notes = [entered.told]
    if model is not None:
        notes += [
            f"{described([found])}; {WITH_ITS_OWN}"
            for found in differences(model)
            if found.is_major
        ]
    return tuple(note for note in notes if note)


def _do(job: Job) -> Outcome:
    if job.export is not None:
        exporter = _exporter(job.export)
        exported = exporter.export(job.export.source, job.export.destination)
        from pipeline.exporters.answers import keep_answers

        return Outcome(export=keep_answers(exported, job.export.source, job.export.destination))
    if job.pack is not None:
        return Outcome(packed=_packed(job.pack))
    if job.packed_check is not None:
        from pipeline.checks.packed import check_packed

        asked = job.packed_check
        report = check_packed(
            asked.export,
            tolerances=asked.tolerances,
            max_batch_size=asked.max_batch_size,
            cases=asked.cases,
        )
        return Outcome(report=report)
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


def _exporter(job: ExportJob) -> Any:
    if job.packages is None:
        return load_kind("exporters", job.exporter)()
    # This package is not installed there, so it has no entry points.
    module, _, name = job.packages.exporter.partition(":")
    return getattr(import_module(module), name)()


def _packed(job: PackJob) -> PackedExport:
    from pipeline.exporters.answers import written_answers
    from pipeline.exporters.python_function import pack

    with ExitStack() as stack:
        made = pack(
            job.source,
            job.packages,
            job.destination,
            flavor=job.flavor,
            load_seconds=job.load_seconds,
            request_seconds=job.request_seconds,
            stack=stack,
        )
        answers = written_answers(made, job.source, job.destination)
    return PackedExport(
        packed=made.served,
        packages=job.packages.folder,
        samples=answers.samples,
        samples_origin=answers.samples_origin,
        probes=answers.probes,
        left_out=(*made.notes, *answers.left_out),
        recorded=answers.recorded,
    )


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
    run_and_exit(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
