"""Runs the stages that execute a model author's code in a child process, and survives them.

Guarantees: the child sees none of our credentials and addresses; it and all it started are gone
when the call returns or raises, whatever the reason; an expected failure inside is raised here as
the same error; any other end (crash, signal, limit) is a :class:`ModelError` that says what
happened to which model. This module itself imports nothing heavy.

The child leaves the network, the files of others and the sight of other processes behind, as far as
the kernel allows; what it does not allow is told once. See ``docs/isolation.md``.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline import errors
from pipeline.artifacts import Export, Report, SourceModel
from pipeline.checks.tolerances import Tolerances
from pipeline.errors import ModelError, TritonpipeError
from pipeline.flows.child_environment import child_environment
from pipeline.flows.children import Child, FreshChild, start_child
from pipeline.flows.failures import Failure, death_of
from pipeline.flows.formats import runs_code
from pipeline.flows.handed_back import expect_plain_files, last_lines_of, result_of
from pipeline.flows.inner_process import ModelPackages
from pipeline.flows.isolation import NOT_AS_TRIED
from pipeline.flows.limits import Limits
from pipeline.flows.unreadable import unreadable
from pipeline.flows.worker_main import (
    CheckJob,
    ExportJob,
    Job,
    Outcome,
)
from pipeline.flows.zygote import Request
from pipeline.plugins import kinds
from pipeline.serialization import from_json, to_json

__all__ = ["Limits", "check_in_child", "choose_exporter", "export_in_child", "run_in_child"]

_log = logging.getLogger(__name__)

_told: set[str] = set()
"""What this program has been told about isolation and versions already."""


def choose_exporter(source: SourceModel) -> str:
    """The first of the model's flavors that has an exporter.

    ``python_function`` never counts: every model has it, and it is Python code by definition.

    Raises:
        ModelError: None has; says which flavors are supported.
    """
    available = kinds("exporters")
    flavors = [flavor for flavor in source.flavors if flavor != "python_function"]
    for flavor in flavors:
        if flavor in available:
            return flavor
    raise ModelError(
        f"{source.version} was logged with {', '.join(flavors) or 'no flavor but python_function'}"
        f"; there are exporters for {', '.join(sorted(available)) or 'nothing'}",
        hint="log the model with one of these flavors, or install the exporter of yours",
    )


def export_in_child(
    source: SourceModel,
    destination: Path,
    *,
    limits: Limits | None = None,
    packages: ModelPackages | None = None,
) -> Export:
    """Export a model into the empty folder ``destination``.

    Args:
        source: The fetched model.
        destination: The folder.
        limits: What the child may use.
        packages: With which packages; None for those that are installed here.

    Raises:
        ModelError: The model cannot be exported as it was logged, or its code ended the child.
        DependencyError: A package that its flavor needs is not installed.
    """
    job = ExportJob(
        source=source,
        exporter=choose_exporter(source),
        destination=destination.resolve(),
        packages=packages,
    )
    outcome = run_in_child(f"exporting {source.version}", limits, export=job)
    export = outcome.export
    if export is None or not all(
        path.resolve().is_relative_to(job.destination) for path in export.files
    ):
        raise ModelError(f"exporting {source.version} left no model in {destination}")
    return export


def check_in_child(
    export: Export,
    *,
    cases: Path,
    tolerances: Tolerances,
    max_batch_size: int,
    limits: Limits | None = None,
) -> Report:
    """Run an exported model and compare it with the predictions of its source.

    Args:
        export: What was exported.
        cases: An empty folder for the inputs on which it fails.
        tolerances: How far its answers may be away.
        max_batch_size: The largest batch that the server forms.
        limits: What the child may use.

    Raises:
        ModelError: Running it ended the child. Answers that differ are findings in the report.
    """
    job = CheckJob(
        export=export,
        tolerances=tolerances,
        max_batch_size=max_batch_size,
        cases=cases.resolve(),
    )
    subject = f"checking the ONNX model in {export.onnx.path}"
    report = run_in_child(subject, limits, check=job).report
    if report is None:
        raise ModelError(f"{subject} gave no report")
    return report


def run_in_child(subject: str, limits: Limits | None, **work: Any) -> Outcome:
    """Do one of the kinds of work of a :class:`Job` in a child; raises what the child raised."""
    with tempfile.TemporaryDirectory(prefix="tritonpipe-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        job = Job(
            subject=subject,
            result=folder / "result.json",
            limits=limits or Limits(),
            **work,
        )
        log = folder / "output.log"
        status = _child(job, folder, log)
        lines = last_lines_of(log)
        if lines:
            _log.debug("output of %s:\n%s", subject, "\n".join(lines))
        if status != 0:
            raise death_of(subject, job.limits, status, lines)
        outcome = _outcome(job)
    _tell_once(outcome.notes)
    if outcome.failure is not None:
        raise _raised_again(outcome.failure)
    for written in job.writes:
        expect_plain_files(written, subject)
    return outcome


def _child(job: Job, folder: Path, log: Path) -> int | None:
    """Run the job; gives its exit status, or None if it took too long."""
    job_file = folder / "job.json"
    job_file.write_text(json.dumps(to_json(job)), encoding="utf-8")
    home = folder / "home"
    home.mkdir()
    request = Request(
        job_file=str(job_file),
        home=str(home),
        environment=child_environment(os.environ, home, is_code_allowed=_runs_code(job)),
        exporter=job.export.exporter if job.export is not None else "",
    )
    with log.open("wb") as output, unreadable():
        status = _status_of(start_child(request, output.fileno()), job.limits)
        if status == NOT_AS_TRIED:
            status = _status_of(FreshChild(request, output.fileno()), job.limits)
    return status


def _status_of(child: Child, limits: Limits) -> int | None:
    try:
        has_ended = child.await_end(limits.seconds)
    finally:
        status = child.end()
    return status if has_ended else None


def _runs_code(job: Job) -> bool:
    return job.export is not None and runs_code(job.export.source.path, job.export.exporter)


def _tell_once(notes: Iterable[str]) -> None:
    for note in notes:
        if note not in _told:
            _told.add(note)
            _log.warning("%s", note)


def _outcome(job: Job) -> Outcome:
    try:
        document = json.loads(result_of(job.result))
        outcome: Outcome = from_json(Outcome, document)
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(
            f"{job.subject} ended without a result: {error}",
            hint="the model's code ended the process itself, for instance with sys.exit(0)",
        ) from error
    return outcome


def _raised_again(failure: Failure) -> TritonpipeError:
    kind = getattr(errors, failure.kind, None)
    if not isinstance(kind, type) or not issubclass(kind, TritonpipeError):
        kind = ModelError
    return kind(failure.message, hint=failure.hint)
