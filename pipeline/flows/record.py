"""Writes the outcome beside the model version, where the data scientist looks."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from pipeline.artifacts import ModelVersion, PromotionResult
from pipeline.errors import (
    ConfirmationError,
    ModelError,
    RefusedError,
    TritonpipeError,
    UnavailableError,
)
from pipeline.manifest import Lineage
from pipeline.registries import Registry
from pipeline.report_page import report_page
from pipeline.reports import Report
from pipeline.serialization import to_json

_log = logging.getLogger(__name__)

TAG_PREFIX: Final = "tritonpipe."
SERVING: Final = "serving"
SUPERSEDED: Final = "superseded"
REFUSED: Final = "refused"
FAILED: Final = "failed"
RETIRED: Final = "retired"

RECORDED_TAGS: Final = frozenset(
    {
        "state", "reason", "triton_model", "triton_version", "release_digest",
        "max_absolute_error", "confirmed_at",
    }
)  # fmt: skip
"""What is written here below the prefix; every other tag below it is the author's."""

_REASON_LENGTH: Final = 500


def record_promotion(registry: Registry, result: PromotionResult) -> str:
    """Tag the version as serving, the previous one as superseded, and keep a short report.

    Returns:
        What was recorded, in words.

    Raises:
        UnavailableError: The registry does not answer; says that the version is served all the
            same.
    """
    tags = serving_tags(result)
    if f"{TAG_PREFIX}reason" in result.version.tags:
        tags[f"{TAG_PREFIX}reason"] = ""  # it was refused before
    report = {"report.json": json.dumps(to_json(result), indent=1), "report.md": summary(result)}
    if result.report is not None:
        report["report.html"] = _page(result.report, result)
    try:
        registry.record(result.version, tags=tags, report=report)
        supersede_others(registry, result.version, result.triton_name)
    except UnavailableError as error:
        raise not_recorded(result.triton_name, result.version, error) from error
    where = "tags and report" if result.version.run_id else "tags; no run to keep the report with"
    return f"{where} on {result.version}"


@contextmanager
def failures_recorded(registry: Registry, version: ModelVersion) -> Iterator[None]:
    """Keep beside a version why it could not be served, if the body says so; raises it on.

    What may heal by itself, such as a server that is down, is not kept.
    """
    try:
        yield
    except RefusedError as error:
        record_refusal(registry, version, error)
        raise
    except (ModelError, ConfirmationError) as error:
        record_failure(registry, version, error)
        raise


def record_refusal(registry: Registry, version: ModelVersion, error: RefusedError) -> None:
    """Tag the version as refused, unless it is served under some name, and keep what was found.

    A registry that does not answer is told in the log alone: the refusal is what matters.
    """
    if not isinstance(error.report, Report):
        record_failure(registry, version, error)
        return
    report = {
        "refused.json": json.dumps(to_json(error.report), indent=1),
        "refused.html": report_page(
            f"{version} was refused", error.report, {"reason": error.message, "at": _now()}
        ),
    }
    is_served = version.tags.get(f"{TAG_PREFIX}state") == SERVING
    tags = {"state": REFUSED, "reason": error.message[:_REASON_LENGTH]}
    try:
        registry.record(
            version,
            tags={} if is_served else {TAG_PREFIX + key: value for key, value in tags.items()},
            report=report,
        )
    except UnavailableError as failure:
        _log.warning("the refusal of %s cannot be recorded: %s", version, failure)


def record_rollback(registry: Registry, version: ModelVersion, triton_name: str) -> str:
    """Tag the version as serving again, and all others of it as superseded.

    Raises:
        UnavailableError: The registry does not answer; says that the version is served all the
            same.
    """
    try:
        registry.record(version, tags={f"{TAG_PREFIX}state": SERVING}, report={})
        supersede_others(registry, version, triton_name)
    except UnavailableError as error:
        raise not_recorded(triton_name, version, error) from error
    return f"{version} is {SERVING} again"


def record_failure(registry: Registry, version: ModelVersion, error: TritonpipeError) -> None:
    """Tag the version with why it is not served, unless it is served under some name.

    A registry that does not answer is told in the log alone.
    """
    if version.tags.get(f"{TAG_PREFIX}state") == SERVING:
        return
    state = REFUSED if isinstance(error, RefusedError | ModelError) else FAILED
    tags = {"state": state, "reason": error.message[:_REASON_LENGTH]}
    try:
        registry.record(
            version, tags={TAG_PREFIX + key: value for key, value in tags.items()}, report={}
        )
    except UnavailableError as failure:
        _log.warning("the failure of %s cannot be recorded: %s", version, failure)


def record_retirement(registry: Registry, lineage: Lineage, triton_name: str) -> str:
    """Tag every version that claims to be served under this name as retired.

    Raises:
        UnavailableError: The registry does not answer; the model is taken away all the same.
    """
    claim = {f"{TAG_PREFIX}state": SERVING, f"{TAG_PREFIX}triton_model": triton_name}
    versions = registry.tagged_versions(lineage.registered_model, claim)
    for version in versions:
        registry.record(version, tags={f"{TAG_PREFIX}state": RETIRED}, report={})
    return f"{', '.join(map(str, versions)) or 'no version'} is {RETIRED}"


def not_recorded(
    triton_name: str, version: ModelVersion, error: UnavailableError
) -> UnavailableError:
    """The error for a release that is served and proven but could not be recorded."""
    name = "" if triton_name == version.name else f" --name {triton_name}"
    return UnavailableError(
        f"{triton_name}/{version.version} is served and confirmed, but not recorded: {error}",
        hint="when MLflow answers, this only confirms and records: "
        f"tritonpipe promote {version}{name}",
    )


def supersede_others(registry: Registry, version: ModelVersion, triton_name: str) -> None:
    """Say on every other version that claims to be served under this name that it is not."""
    claim = {f"{TAG_PREFIX}state": SERVING, f"{TAG_PREFIX}triton_model": triton_name}
    for other in registry.tagged_versions(version.name, claim):
        if other.version != version.version:
            registry.record(other, tags={f"{TAG_PREFIX}state": SUPERSEDED}, report={})


def serving_tags(result: PromotionResult) -> dict[str, str]:
    """Tags of a version that is served."""
    errors = [c.max_absolute_error for c in result.confirmation.comparisons]
    tags = {
        "state": SERVING,
        "triton_model": result.triton_name,
        "triton_version": str(result.confirmation.version),
        "release_digest": result.digest,
        "max_absolute_error": f"{max(errors):.3e}",
        "confirmed_at": _now(),
    }
    return {TAG_PREFIX + key: value for key, value in tags.items()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _page(report: Report, result: PromotionResult) -> str:
    answers = "; ".join(
        f"{c.subject} {c.max_absolute_error:.1e}" for c in result.confirmation.comparisons
    )
    facts = {
        "release": result.digest,
        "Triton model": f"{result.triton_name}/{result.confirmation.version}",
        "largest errors of the live server": answers,
        "seconds": ", ".join(f"{stage} {taken:.2f}" for stage, taken in result.seconds.items()),
        "at": _now(),
    }
    return report_page(f"{result.version} as served by Triton", report, facts)


def summary(result: PromotionResult) -> str:
    """A short report in Markdown."""
    lines = [
        f"# {result.version} served by Triton as {result.triton_name}",
        "",
        f"- release: `{result.digest}`",
        f"- previous version: {result.previous if result.previous is not None else 'none'}",
        "",
        "Compared with the model's own predictions:",
        "",
        "| run | output | rows | mismatched | max abs. error |",
        "|---|---|---|---|---|",
    ]
    exported = result.report.comparisons if result.report else ()
    lines += [
        f"| {c.subject} | {c.output} | {c.rows} | {c.mismatched} | {c.max_absolute_error:.2e} |"
        for c in (*exported, *result.confirmation.comparisons)
    ]
    lines += ["", "| stage | seconds |", "|---|---|"]
    lines += [f"| {stage} | {seconds:.2f} |" for stage, seconds in result.seconds.items()]
    return "\n".join(lines) + "\n"
