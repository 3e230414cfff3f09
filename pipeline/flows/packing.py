"""Models that no exporter can convert, served by their own Python code where somebody allows it.

Serving such a model runs its author's code in the server, for as long as it is served. So it is off
unless the settings allow it, for all versions or for those that carry the tag
``tritonpipe.pyfunc``; a tag alone allows nothing, since authors of models set tags.

Guarantees: nothing of the model runs outside of the isolated child before it is published; its
packages are installed before that, as wheels and without any code of theirs.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline.artifacts import Report, SourceModel
from pipeline.checks.tolerances import Tolerances
from pipeline.errors import ModelError
from pipeline.exporters.logged import has_inputs_logged
from pipeline.flows.claims import TAG_PREFIX
from pipeline.flows.environments import Environment, build_environment, packed_packages
from pipeline.flows.progress import Progress
from pipeline.flows.requirements import requirements_of
from pipeline.flows.worker import Limits, run_in_child
from pipeline.flows.worker_main import PackedCheckJob, PackJob
from pipeline.packed_models import PackedExport, PythonPackages
from pipeline.settings import Settings

FLAVOR: Final = "python_function"
TAG: Final = f"{TAG_PREFIX}pyfunc"
ALLOW: Final = "allow"
DENY: Final = "deny"
HOW_TO_ALLOW: Final = (
    f"or let Triton run the model's own Python code, see docs/pyfunc.md: TRITONPIPE_PYFUNC=tagged "
    f"and the tag {TAG}={ALLOW} on the version, or TRITONPIPE_PYFUNC=on"
)


def is_allowed(setting: str, tags: Mapping[str, str]) -> bool:
    """Whether a model's own code may run in the server.

    Args:
        setting: ``off``, ``tagged`` or ``on``.
        tags: Of the model version. ``allow`` counts with ``tagged``, ``deny`` with both.

    Raises:
        ModelError: The tag says something else, and is asked.
    """
    said = tags.get(TAG)
    if setting == "off":
        return False
    if said not in (None, ALLOW, DENY):
        raise ModelError(
            f"the tag {TAG} of the model version is {said!r}, expected {ALLOW!r} or {DENY!r}",
            hint=f"set it to {ALLOW!r} or {DENY!r}, or delete it",
        )
    return said == ALLOW or (setting == "on" and said != DENY)


def may_be_packed(source: SourceModel, settings: Settings) -> bool:
    """Whether a model has Python code that can be asked, and is allowed to be."""
    return FLAVOR in source.flavors and is_allowed(settings.pyfunc, source.version.tags)


def with_how_to_allow(error: ModelError, source: SourceModel) -> ModelError:
    """The same error; its hint names the other way where there is one."""
    if FLAVOR not in source.flavors or not has_inputs_logged(source):
        return error
    hint = f"{error.hint}; {HOW_TO_ALLOW}" if error.hint else HOW_TO_ALLOW.removeprefix("or ")
    return ModelError(error.message, hint=hint)


def packages_of(source: SourceModel, settings: Settings, progress: Progress) -> PythonPackages:
    """The packages that the model asks for, installed and as an archive.

    Raises:
        ModelError: They cannot be had, or are too large.
        UnavailableError: The index does not answer.
        DependencyError: There is no pip, or no room.
    """
    with progress("packages") as describe:
        requirements = requirements_of(source.path)
        _expect_this_python(requirements.python, source)
        environment: Environment = build_environment(
            requirements,
            seconds=settings.export_seconds,
            most_bytes=settings.pyfunc_bytes,
        )
        packages = packed_packages(environment)
        size = packages.archive.stat().st_size / 2**20
        describe(
            f"{len(packages.installed)} for Python {packages.python_version}, {size:.0f} MiB packed"
        )
    return packages


def _expect_this_python(wanted: str, source: SourceModel) -> None:
    """The isolated child, which checks the packed model, is of the Python that runs this."""
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if wanted not in ("", ours):
        raise ModelError(
            f"{source.version} was logged with Python {wanted}, and tritonpipe runs on {ours}: its "
            "code and packages cannot be checked",
            hint=f"run tritonpipe, and Triton, with Python {wanted}, or log the model with {ours}",
        )


def pack_in_child(
    source: SourceModel,
    packages: PythonPackages,
    destination: Path,
    *,
    settings: Settings,
    limits: Limits,
) -> PackedExport:
    """Pack a model into the empty folder ``destination``, with its own predictions beside it.

    Raises:
        ModelError: It cannot be loaded with its packages, or answers what no tensors carry, or
            answers differently when it is asked twice.
    """
    subject = f"packing {source.version}"
    job = PackJob(
        source=source,
        packages=packages,
        destination=destination.resolve(),
        flavor=FLAVOR,
        load_seconds=settings.pyfunc_load_seconds,
        request_seconds=settings.pyfunc_request_seconds,
    )
    packed = run_in_child(subject, limits, pack=job).packed
    if packed is None or not all(p.resolve().is_relative_to(job.destination) for p in packed.files):
        raise ModelError(f"{subject} left no model in {destination}")
    return packed


def check_packed_in_child(
    export: PackedExport,
    *,
    cases: Path,
    tolerances: Tolerances,
    max_batch_size: int,
    limits: Limits,
) -> Report:
    """Run a packed model as the server does, and compare with the predictions of its original.

    Raises:
        ModelError: Running it ended the child. Answers that differ are findings in the report.
    """
    job = PackedCheckJob(
        export=export,
        tolerances=tolerances,
        max_batch_size=max_batch_size,
        cases=cases.resolve(),
    )
    subject = f"checking the packed model in {export.packed.path}"
    report = run_in_child(subject, limits, packed_check=job).report
    if report is None:
        raise ModelError(f"{subject} gave no report")
    return report
