"""Writes the outcome beside the model version, where the data scientist looks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final

from pipeline.artifacts import ModelVersion, PromotionResult
from pipeline.registries import Registry
from pipeline.serialization import to_json

TAG_PREFIX: Final = "tritonpipe."
SERVING: Final = "serving"
SUPERSEDED: Final = "superseded"


def record_promotion(registry: Registry, result: PromotionResult) -> str:
    """Tag the version as serving, the previous one as superseded, and keep a short report.

    Returns:
        What was recorded, in words.
    """
    tags = serving_tags(result)
    report = {"report.json": json.dumps(to_json(result), indent=1), "report.md": summary(result)}
    registry.record(result.version, tags=tags, report=report)
    supersede(registry, result.version, result.previous)
    where = "tags and report" if result.version.run_id else "tags; no run to keep the report with"
    return f"{where} on {result.version}"


def supersede(registry: Registry, version: ModelVersion, previous: int | None) -> None:
    """Say on the version that was served before that it no longer is."""
    if previous is None or previous == version.version:
        return
    old = ModelVersion(name=version.name, version=previous, run_id=None, source="", tags={})
    registry.record(old, tags={f"{TAG_PREFIX}state": SUPERSEDED}, report={})


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
