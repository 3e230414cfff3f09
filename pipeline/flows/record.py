"""Writes the outcome beside the model version, where the data scientist looks.

Guarantees: what the tags say of a version is computed from its claims, after each change, and read
again, so that of several who write at once the last one leaves what is true. A claim is made
or ended after everything else, so what is missing is made up for by recording again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from pipeline.artifacts import Confirmation, ModelVersion, Release
from pipeline.errors import (
    ConfirmationError,
    ModelError,
    RefusedError,
    TritonpipeError,
    UnavailableError,
)
from pipeline.flows.claims import (
    FAILED,
    REFUSED,
    RETIRED,
    SUPERSEDED,
    TAG_PREFIX,
    Claim,
    Standing,
    claim_tag,
    claim_text,
    claims_of,
    state_tags,
)
from pipeline.flows.service_report import Service, model_digest, parity_text
from pipeline.manifest import Lineage
from pipeline.registries import Registry
from pipeline.report_page import report_page
from pipeline.reports import Report
from pipeline.serialization import to_json

_log = logging.getLogger(__name__)

_REASON_LENGTH: Final = 500
_PARITY: Final = f"{TAG_PREFIX}parity"

_MOST_LOOKS: Final = 5
"""How often tags are read again that somebody else writes at the same moment."""


def record_served(
    registry: Registry,
    version: ModelVersion,
    release: Release,
    confirmation: Confirmation,
    *,
    address: str,
    seconds: Mapping[str, float],
    alias: str = "",
    report: Report | None = None,
) -> str:
    """Say on a version that it is served, and on those before it that they no longer are.

    Args:
        registry: Where to.
        version: The version.
        release: What is served.
        confirmation: Answers of the live servers.
        address: Where a server answers over HTTP.
        seconds: Duration of each stage.
        alias: The alias on whose behalf; empty if a version was named.
        report: The comparisons before it was published; None if it was published earlier.

    Returns:
        What was recorded, in words.

    Raises:
        UnavailableError: The registry does not answer; says that the version is served all the
            same.
    """
    name = release.manifest.model
    try:
        tags = registry.tags_now(version) or {}
        claim = _claim(claims_of(tags).get(name), release, confirmation, alias)
        parity = tags.get(_PARITY, "") if report is None else parity_text(report, release)
        service = Service(
            version=version,
            release=release,
            confirmation=confirmation,
            claim=claim,
            parity=parity,
            address=address,
            seconds=seconds,
        )
        pages = service.pages
        if report is not None:
            title = f"{version} compared with its model before publication"
            pages["parity.html"] = report_page(title, report, {"at": claim.confirmed_at})
            pages["parity.json"] = json.dumps(to_json(report), indent=1)
        is_kept = registry.keep_report(version, f"{name}-{version.version}", pages)
        lineage = release.manifest.lineage
        facts = {
            "triton_version": str(release.manifest.version),
            "parity": parity or None,
            "model_digest": model_digest(release) or None,
            "source_digest": lineage.source_digest,
        }
        nowhere = Standing(state=SUPERSEDED, reason="", at=claim.since)
        planned = {**tags, claim_tag(name): claim_text(claim)}
        written = {TAG_PREFIX + key: value for key, value in facts.items()}
        registry.record(version, _changes(tags, {**written, **state_tags(planned, nowhere)}))
        registry.record(version, {claim_tag(name): claim_text(claim)})
        _settle(registry, version, nowhere)
        reason = f"{name} serves version {version.version}"
        _withdraw_claims(registry, version.name, name, SUPERSEDED, reason, but=version.version)
    except UnavailableError as error:
        raise _not_recorded(name, version, error) from error
    return f"tags{' and report' if is_kept else ''} on {version}"


@contextmanager
def failures_recorded(registry: Registry, version: ModelVersion) -> Iterator[None]:
    """Keep beside a version why it could not be served, if the body says so; raises it on.

    What may heal by itself, such as a server that is down, is not kept. A registry that does not
    answer is told in the log alone: the failure is what matters.
    """
    try:
        yield
    except (RefusedError, ModelError, ConfirmationError) as error:
        try:
            record_failure(registry, version, error)
        except UnavailableError as failure:
            _log.warning("the failure of %s cannot be recorded: %s", version, failure)
        raise


def record_failure(registry: Registry, version: ModelVersion, error: TritonpipeError) -> None:
    """Say why a version is not served, unless it is under some name, and keep what was found.

    Where the findings can be read is added to the error.

    Raises:
        UnavailableError: The registry does not answer.
    """
    at = _now()
    report = error.report if isinstance(error, RefusedError) else None
    folder, is_kept = f"{version.name}-{version.version}", False
    if isinstance(report, Report):
        title = f"{version} was refused"
        pages = {
            "refused.json": json.dumps(to_json(report), indent=1),
            "refused.html": report_page(title, report, {"reason": error.message, "at": at}),
        }
        is_kept = registry.keep_report(version, folder, pages)
    state = REFUSED if isinstance(error, RefusedError | ModelError) else FAILED
    record_reason(registry, version, state, error.message)
    run = registry.run(version.run_id) if is_kept and version.run_id else None
    if run is not None and run.page:
        error.add_line(f"report: {run.report_page(folder, 'refused.html')}")


def record_reason(registry: Registry, version: ModelVersion, state: str, reason: str) -> None:
    """Say why a version is not served, unless it is under some name.

    Args:
        registry: Where to.
        version: The version.
        state: :data:`pipeline.flows.claims.REFUSED` or :data:`pipeline.flows.claims.FAILED`.
        reason: In words; only the beginning of a long one is kept.

    Raises:
        UnavailableError: The registry does not answer.
    """
    _settle(registry, version, Standing(state=state, reason=reason[:_REASON_LENGTH], at=_now()))


def record_retirement(
    registry: Registry, lineage: Lineage, triton_name: str, *, reason: str
) -> list[ModelVersion]:
    """Say on every version that claims to be served under this name that it no longer is.

    Returns:
        The versions that claimed it.

    Raises:
        UnavailableError: The registry does not answer; the model is taken away all the same.
    """
    reason = f"{triton_name} was taken away" + (f": {reason}" if reason else "")
    return _withdraw_claims(registry, lineage.registered_model, triton_name, RETIRED, reason)


def _claim(before: Claim | None, release: Release, confirmation: Confirmation, alias: str) -> Claim:
    now = _now()
    return Claim(
        alias=alias or (before.alias if before else ""),
        since=(before.since if before else "") or now,
        confirmed_at=now,
        release_digest=release.manifest.digest,
        max_absolute_error=max(c.max_absolute_error for c in confirmation.comparisons),
        latency_milliseconds=confirmation.latency_milliseconds,
    )


def _withdraw_claims(
    registry: Registry,
    model: str,
    triton_name: str,
    state: str,
    reason: str,
    *,
    but: int | None = None,
) -> list[ModelVersion]:
    """End every claim to a name but that of one version; returns whose they were."""
    standing = Standing(state=state, reason=reason[:_REASON_LENGTH], at=_now())
    found = [
        version
        for version in registry.tagged_versions(model, {})
        if version.version != but and triton_name in claims_of(version.tags)
    ]
    for version in found:
        key = claim_tag(triton_name)
        planned = {k: v for k, v in version.tags.items() if k != key}
        registry.record(version, _changes(version.tags, state_tags(planned, standing)))
        registry.record(version, {key: None})
        _settle(registry, version, standing)
    return found


def _settle(registry: Registry, version: ModelVersion, otherwise: Standing) -> None:
    """Bring the tags of the state in line with the claims that are there by now."""
    for _look in range(_MOST_LOOKS):
        tags = registry.tags_now(version)
        changes = {} if tags is None else _changes(tags, state_tags(tags, otherwise))
        if not changes:
            return
        registry.record(version, changes)


def _changes(tags: Mapping[str, str], wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    """What of the tags is not as it has to be."""
    return {key: value for key, value in wanted.items() if tags.get(key) != value}


def _not_recorded(
    triton_name: str, version: ModelVersion, error: UnavailableError
) -> UnavailableError:
    """The error for a release that is served and proven but could not be recorded."""
    name = "" if triton_name == version.name else f" --name {triton_name}"
    return UnavailableError(
        f"{triton_name}/{version.version} is served and confirmed, but not recorded: {error}",
        hint="when MLflow answers, this only confirms and records: "
        f"tritonpipe promote {version}{name}",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
