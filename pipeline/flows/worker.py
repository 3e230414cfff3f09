"""Runs the stages that execute a model author's code in a child process, and survives them.

Guarantees: the child sees none of our credentials and addresses; it and all it started are gone
when the call returns or raises, whatever the reason; an expected failure inside is raised here as
the same error; any other end (crash, signal, limit) is a :class:`ModelError` that says what
happened to which model. This module itself imports nothing heavy.

The child leaves the network, the files of others and the sight of other processes behind, as far as
the kernel allows; what it does not allow is told once. See ``docs/isolation.md``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pipeline import errors
from pipeline.artifacts import Export, Report, SourceModel
from pipeline.checks.tolerances import Tolerances
from pipeline.errors import ModelError, TritonpipeError
from pipeline.flows.failures import Failure, death_of
from pipeline.flows.formats import runs_code
from pipeline.flows.handed_back import expect_plain_files, last_lines_of, result_of
from pipeline.flows.inner_process import ModelPackages
from pipeline.flows.limits import Limits
from pipeline.flows.unreadable import unreadable
from pipeline.flows.worker_main import (
    CheckJob,
    ExportJob,
    Job,
    Outcome,
)
from pipeline.plugins import kinds
from pipeline.serialization import from_json, to_json

__all__ = ["Limits", "check_in_child", "choose_exporter", "export_in_child", "run_in_child"]

_log = logging.getLogger(__name__)

_PASSED_ON: Final = (
    "PATH",
    "PYTHONPATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
_CODE_SWITCHES: Final = (
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION",
    "MLFLOW_ALLOW_MODEL_CODE_EXECUTION",  # since MLflow 3.18
)
_SET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # The discard port: whatever asks for a server finds none.
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "PYTHONUNBUFFERED": "1",
    "PYTHONHASHSEED": "0",
}
_POLL_SECONDS: Final = 0.02
_GUARD_SECONDS: Final = 10.0
"""How long the guard of the child has for ending all that it started."""

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
            parent=os.getpid(),
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
    command = [sys.executable, "-P", "-X", "faulthandler", "-m", "pipeline.flows.worker_main"]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  our own module
            [*command, str(job_file)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=_environment(os.environ, home, is_code_allowed=_runs_code(job)),
            start_new_session=True,
        )
        with unreadable():
            try:
                has_ended = _await_end(process.pid, job.limits.seconds)
            finally:
                _end(process)
    return process.returncode if has_ended else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a child that has perhaps ended already, and wait until all that it started is gone."""
    # The child is not reaped yet, so its number cannot belong to others.
    with contextlib.suppress(ProcessLookupError):
        process.terminate()  # the guard ends all, even what has left its group
    try:
        process.wait(_GUARD_SECONDS)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await_end(pid: int, seconds: float) -> bool:
    """Wait for a process to end without reaping it; False if it still runs after ``seconds``."""
    deadline = time.monotonic() + seconds
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _runs_code(job: Job) -> bool:
    return job.export is not None and runs_code(job.export.source.path, job.export.exporter)


def _environment(ours: Mapping[str, str], home: Path, *, is_code_allowed: bool) -> dict[str, str]:
    """What the child sees: an allow-list, because nobody can list all names of secrets."""
    passed_on = {name: ours[name] for name in _PASSED_ON if name in ours}
    switches = dict.fromkeys(_CODE_SWITCHES, "true" if is_code_allowed else "false")
    return {**passed_on, **_SET, **switches, "HOME": str(home), "TMPDIR": str(home)}


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
