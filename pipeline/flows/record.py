"""Writes the outcome beside the model version, where the data scientist looks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from pipeline.artifacts import ModelVersion, PromotionResult
from pipeline.errors import UnavailableError
from pipeline.registries import Registry
from pipeline.serialization import to_json

TAG_PREFIX: Final = "tritonpipe."
SERVING: Final = "serving"
SUPERSEDED: Final = "superseded"


def record_promotion(registry: Registry, result: PromotionResult) -> str:
    """Tag the version as serving, the previous one as superseded, and keep a short report.

    Returns:
        What was recorded, in words.

    Raises:
        UnavailableError: The registry does not answer; says that the version is served all the
            same.
    """
    tags = serving_tags(result)
    report = {"report.json": json.dumps(to_json(result), indent=1), "report.md": summary(result)}
    try:
        registry.record(result.version, tags=tags, report=report)
        supersede_others(registry, result.version, result.triton_name)
    except UnavailableError as error:
        raise not_recorded(result.triton_name, result.version, error) from error
    where = "tags and report" if result.version.run_id else "tags; no run to keep the report with"
    return f"{where} on {result.version}"


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
        "confirmed_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {TAG_PREFIX + key: value for key, value in tags.items()}


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
