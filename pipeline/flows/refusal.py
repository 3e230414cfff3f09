"""What is kept of an export that was refused, so that its author can see it fail.

Guarantees: the folder is this user's alone; a refusal of the same version replaces the earlier one,
so that a loop that tries again and again fills no disk; nothing of it concerns what is served.
"""

from __future__ import annotations

import getpass
import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Final

from pipeline.artifacts import Export, ModelVersion
from pipeline.checks.cases import SCRIPT
from pipeline.errors import RefusedError, SettingsError
from pipeline.packed_models import PackedExport
from pipeline.reports import Comparison, Question, Report

_SHOWN: Final = 3
_TELLING: Final = (Question.FORM, Question.NEIGHBOURS, Question.DECISION, Question.VALUES)
_HINT: Final = (
    "nothing was published. A difference that is acceptable is allowed by tags of the version or "
    "its registered model, tritonpipe.relative_tolerance, tritonpipe.absolute_tolerance or "
    "tritonpipe.allowed_row_fraction, or for all by settings: tritonpipe config show MODEL"
)


def refused(
    report: Report,
    export: Export | PackedExport,
    cases: Path,
    *,
    version: ModelVersion,
    folder: str,
) -> RefusedError:
    """Keep the graph with the inputs on which it failed, and say what is wrong in short lines.

    Args:
        report: The findings.
        export: What was exported; its folder is moved.
        cases: Where the check wrote them.
        version: Whose export it is.
        folder: Where to keep it; empty for a folder of this user among the temporary files.

    Raises:
        SettingsError: The folder cannot be written, or is somebody else's.
    """
    lines = [f"the export of {version} does not agree with the model's own predictions:"]
    shown = _most_telling(report)[:_SHOWN]
    for finding in shown:
        lines += [finding.problem, f"  in {finding.where}"]
    more = sum(not c.ok for c in report.comparisons) - len(shown)
    lines += [f"and {more} more finding{'s' if more > 1 else ''}"] if more else []
    lines += [] if shown else ["nothing could be compared"]
    if any(finding.question is Question.VALUES for finding in shown):
        lines.append(
            f"allowed: {report.absolute_tolerance:g} + {report.relative_tolerance:g} * |expected|"
        )
    if any(cases.iterdir()):
        kept = _kept(export, cases, _own_folder(folder) / _name(version))
        if isinstance(export, PackedExport):
            lines.append(f"failing inputs: {kept}")
        else:
            lines += [f"failing inputs and graph: {kept}", f"see it fail: python {kept / SCRIPT}"]
    return RefusedError("\n  ".join(lines), hint=_HINT, report=report)


def _most_telling(report: Report) -> list[Comparison]:
    """The worst finding of each kind and output; wrong values follow from whatever is wrong."""
    found = [c for c in report.comparisons if not c.ok]
    kinds = sorted({(_TELLING.index(c.question), c.output) for c in found})
    return [
        max(
            (c for c in found if c.question is _TELLING[kind] and c.output == output),
            key=lambda c: c.max_absolute_error,
        )
        for kind, output in kinds
    ]


def _name(version: ModelVersion) -> str:
    return re.sub(r"[^\w.-]", "_", f"{version.name}-{version.version}")


def _own_folder(wished: str) -> Path:
    folder = Path(wished) if wished else Path(tempfile.gettempdir()) / _default_name()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise SettingsError(
            f"what is refused cannot be kept in {folder}: {error}",
            hint="set TRITONPIPE_REFUSALS to a folder that can be written",
        ) from error
    # Among the temporary files anybody can put a link of that name.
    if not wished and (not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid()):
        raise SettingsError(
            f"{folder} is not a folder of this user: what is refused is not kept there",
            hint="set TRITONPIPE_REFUSALS to a folder of your own",
        )
    return folder


def _default_name() -> str:
    try:
        return f"tritonpipe-refused-{getpass.getuser()}"
    except (KeyError, OSError):  # a user without a name, as in many containers
        return f"tritonpipe-refused-{os.getuid()}"


def _kept(export: Export | PackedExport, cases: Path, place: Path) -> Path:
    """Both in one folder under its final name, which is never half filled."""
    staging = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    if not isinstance(export, PackedExport):
        shutil.move(export.onnx.path, staging / "onnx")
    for file in cases.iterdir():
        shutil.move(file, staging / file.name)
    if place.exists():
        shutil.rmtree(place)
    return staging.rename(place)
