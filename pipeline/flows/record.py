"""Writes the outcome beside the model version, where the data scientist looks.

Guarantees: what the tags say of a version is computed from its claims, after each change, and read
again; the claims to a name end as those of what was proven there last, whoever writes at once. A
claim is made or ended after everything else, so what is missing is made up for by recording again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final

from pipeline.artifacts import Confirmation, ModelVersion, Release
from pipeline.errors import (
    ConfirmationError,
    ModelError,
    RefusedError,
    TritonpipeError,
    UnavailableError,
)
from pipeline.flows.claimants import agree, changes, no_longer, now, served_as, settle
from pipeline.flows.claims import (
    FAILED,
    REFUSED,
    TAG_PREFIX,
    Claim,
    ServedNowhere,
    claim_tag,
    claim_text,
    claims_of,
    state_tags,
)
from pipeline.flows.servers import Servers
from pipeline.flows.service_report import Service, model_digest, parity_text
from pipeline.manifest import Lineage
from pipeline.registries import Registry
from pipeline.report_page import report_page
from pipeline.reports import Report
from pipeline.serialization import to_json

_log = logging.getLogger(__name__)

_PARITY: Final = f"{TAG_PREFIX}parity"


def record_served(
    servers: Servers,
    version: ModelVersion,
    release: Release,
    confirmation: Confirmation,
    *,
    seconds: Mapping[str, float],
    alias: str = "",
    report: Report | None = None,
) -> str:
    """Say on a version that it is served, and on those before it that they no longer are.

    Needs no lock: if another version was proven meanwhile, that one stays the one that is served.

    Args:
        servers: Where it is served, and the registry.
        version: The version.
        release: What is served.
        confirmation: Answers of the live servers.
        seconds: Duration of each stage.
        alias: The alias on whose behalf; empty if a version was named.
        report: The comparisons before it was published; None if it was published earlier.

    Returns:
        What was recorded, in words.

    Raises:
        ConflictError: The journal that tells what is served is damaged.
        UnavailableError: The registry does not answer; says that the version is served all the
            same.
    """
    name, registry = release.manifest.model, servers.registry
    otherwise = partial(no_longer, servers, name)
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
            address=servers.replicas[0].http_address,
            seconds=seconds,
        )
        pages = service.pages
        if report is not None:
            title = f"{version} compared with its model before publication"
            pages["parity.html"] = report_page(title, report, {"at": claim.confirmed_at})
            pages["parity.json"] = json.dumps(to_json(report), indent=1)
        is_kept = registry.keep_report(version, f"{name}-{version.version}", pages)
        is_served = served_as(servers, name) == (version.name, version.version)
        if is_served:
            facts = {
                "triton_version": str(release.manifest.version),
                "parity": parity or None,
                "model_digest": model_digest(release) or None,
                "source_digest": release.manifest.lineage.source_digest,
            }
            own = claim_tag(name), claim_text(claim)
            wanted = {TAG_PREFIX + key: value for key, value in facts.items()}
            wanted |= state_tags(dict([*tags.items(), own]), otherwise)
            registry.record(version, {**changes(tags, wanted), **dict([own])})
        settle(registry, version, otherwise)
        agree(servers, version.name, name)
    except UnavailableError as error:
        raise _not_recorded(name, version, error) from error
    if not is_served:
        return f"nothing on {version}: {otherwise().reason} by now"
    return f"tags{' and report' if is_kept else ''} on {version}"


@contextmanager
def failures_recorded(registry: Registry, version: ModelVersion, name: str) -> Iterator[None]:
    """Keep beside a version why it could not be served, if the body says so; raises it on.

    What may heal by itself, such as a server that is down, is not kept. Whatever keeps it from
    being recorded is told in the log alone: the failure is what matters.

    Args:
        registry: Where to.
        version: The version.
        name: The name in Triton under which it was to be served.
    """
    try:
        yield
    except (RefusedError, ModelError, ConfirmationError) as error:
        try:
            record_failure(registry, version, name, error)
        except Exception as failure:  # noqa: BLE001  it would take the place of the real one
            _log.warning("the failure of %s cannot be recorded: %s", version, failure)
        raise


def record_failure(
    registry: Registry, version: ModelVersion, name: str, error: TritonpipeError
) -> None:
    """Say why a version is not served, unless it is under some name, and keep what was found.

    Where the findings can be read is added to the error.

    Args:
        registry: Where to.
        version: The version.
        name: The name in Triton under which it was to be served.
        error: Why it is not.

    Raises:
        UnavailableError: The registry does not answer.
    """
    report = error.report if isinstance(error, RefusedError) else None
    folder, is_kept = f"{name}-{version.version}", False
    if isinstance(report, Report):
        title = f"{version} was refused"
        facts = {"reason": error.message, "at": now()}
        pages = {
            "refused.json": json.dumps(to_json(report), indent=1),
            "refused.html": report_page(title, report, facts),
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
        reason: In words; kept as :func:`pipeline.flows.claims.reason_text` gives it.

    Raises:
        UnavailableError: The registry does not answer.
    """
    nowhere = ServedNowhere(state=state, reason=reason, at=now())
    settle(registry, version, lambda: nowhere)


def record_retirement(servers: Servers, lineage: Lineage, name: str) -> list[ModelVersion]:
    """Say on every version that claims to be served under this name that it no longer is.

    A version that was proven there meanwhile stays the one that is served.

    Returns:
        The versions that claimed it.

    Raises:
        ConflictError: The journal that tells what is served is damaged.
        UnavailableError: The registry does not answer; the model is taken away all the same.
    """
    return agree(servers, lineage.registered_model, name)


def _claim(before: Claim | None, release: Release, confirmation: Confirmation, alias: str) -> Claim:
    at = now()
    return Claim(
        alias=alias or (before.alias if before else ""),
        since=(before.since if before else "") or at,
        confirmed_at=at,
        release_digest=release.manifest.digest,
        max_absolute_error=max(c.max_absolute_error for c in confirmation.comparisons),
        latency_milliseconds=confirmation.latency_milliseconds,
    )


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
