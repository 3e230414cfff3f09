"""What is wrong with one model: store and records compared with each other; pure.

Every finding says what follows from it and what to do about it. Which of them can be put right
without a decision of a person is the business of :mod:`pipeline.flows.repair`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from pipeline.artifacts import Release
from pipeline.errors import ConflictError
from pipeline.findings import Finding, Severity
from pipeline.flows.evidence import Evidence
from pipeline.flows.publish import WARMUP_MARKER
from pipeline.manifest import MANIFEST_NAME, SIGNATURE_NAME
from pipeline.model_config import CONFIG_NAME

_NEW_VERSION = "its bytes are lost: register the model as a new version and promote that"


def store_findings(evidence: Evidence) -> Iterator[Finding]:
    """How objects, config, releases and journal of a model disagree."""
    if not evidence.holdings.is_recorded and not (
        evidence.journal_damage or evidence.record_damage
    ):
        yield _foreign(evidence)
        return
    yield from _in_journal(evidence)
    yield from _in_records(evidence)
    yield from _in_versions(evidence)
    yield from _in_config(evidence)
    yield from _in_marker(evidence)


def is_consistent(release: Release, model: str, version: int) -> bool:
    """Whether the parts of a record agree, so that it can be trusted to restore others."""
    manifest = release.manifest
    sha256 = hashlib.sha256(release.config.encode()).hexdigest()
    return (manifest.model, manifest.version, manifest.config_sha256) == (model, version, sha256)


def _foreign(evidence: Evidence) -> Finding:
    return Finding(
        severity=Severity.WARNING,
        code="foreign-model",
        subject=evidence.model,
        message="no record knows this model: it was not published by this tool, or its publication "
        "was killed before it was recorded; it cannot be verified",
        hint=f"leave it to whoever put it there; a leftover goes with: tritonpipe gc "
        f"{evidence.model}",
    )


def _in_journal(evidence: Evidence) -> Iterator[Finding]:
    model, attempt = evidence.model, evidence.holdings.attempt
    for text in evidence.journal_damage:
        yield Finding(
            severity=Severity.ERROR,
            code="journal-damaged",
            subject=model,
            message=f"{text}: what was served is not known for certain, and nothing is published, "
            "collected or repaired until it is",
            hint="restore that object of the records from a copy of the bucket, or delete it if "
            "what it said is known not to matter",
        )
    if evidence.missing_entries:
        numbers = ", ".join(str(n) for n in evidence.missing_entries[:5])
        yield Finding(
            severity=Severity.WARNING,
            code="journal-gap",
            subject=model,
            message=f"entries {numbers} of the journal are gone: what they said is not known",
            hint="restore them from a copy of the bucket, if there is one",
        )
    if attempt is not None:
        yield Finding(
            severity=Severity.WARNING,
            code="open-attempt",
            subject=f"{model}/{attempt.version}",
            message=f"the {attempt.action} by {attempt.by} at {attempt.at} has no outcome: its run "
            "was killed",
            hint=f"run it again, or: tritonpipe rollback {model}",
        )


def _in_records(evidence: Evidence) -> Iterator[Finding]:
    model, releases = evidence.model, evidence.holdings.releases
    for version, text in evidence.record_damage.items():
        yield _record(model, version, "record-damaged", text)
    for version in sorted(evidence.kept - releases.keys() - evidence.record_damage.keys()):
        yield _record(model, version, "record-missing", "its record is gone")
    for version, release in releases.items():
        if not is_consistent(release, model, version):
            text = "its record was altered: manifest and config in it do not belong together"
            yield _record(model, version, "record-altered", text)
        elif version in evidence.without_golden and version in evidence.kept:
            text = "its golden samples are missing or damaged"
            yield _record(model, version, "golden-missing", text)


def _record(model: str, version: int, code: str, text: str) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        code=code,
        subject=f"{model}/{version}",
        message=f"{text}: it cannot be proven, and so not be served again or returned to",
        hint="restore the objects of the record from a copy of the bucket; or register the model "
        "as a new version and promote that",
    )


def _in_versions(evidence: Evidence) -> Iterator[Finding]:
    holdings, kept = evidence.holdings, evidence.kept
    # An ensemble's version is its manifest alone: without it there is no folder.
    bare = {v for v in kept if _has_no_files(holdings.releases.get(v))}
    for version in sorted(holdings.folders.keys() | bare):
        release = holdings.releases.get(version)
        if version not in kept:
            yield _leftover(evidence, version)
        elif release is not None and is_consistent(release, evidence.model, version):
            yield from _in_release(evidence, release)
    for version in holdings.proven:
        if version not in holdings.folders.keys() | bare | set(evidence.named):
            is_near = version in holdings.served_before(evidence.expected)[-2:]
            yield Finding(
                severity=Severity.ERROR if is_near else Severity.WARNING,
                code="release-gone",
                subject=f"{evidence.model}/{version}",
                message="a proven release whose files are gone, and nobody collected it: nothing "
                "can return to it",
                hint="gc gives it up once it would be collected anyway; until then, "
                + _NEW_VERSION,
            )


def _leftover(evidence: Evidence, version: int) -> Finding:
    collected = evidence.holdings.is_collected(version)
    return Finding(
        severity=Severity.WARNING if collected else Severity.NOTE,
        code="collection-unfinished" if collected else "leftover",
        subject=f"{evidence.model}/{version}",
        message="its collection was killed before its last object was gone"
        if collected
        else "left by a publication that was never proven; nothing refers to it",
        hint="fsck --repair or gc removes it",
    )


def _in_release(evidence: Evidence, release: Release) -> Iterator[Finding]:
    version = release.manifest.version
    subject = f"{evidence.model}/{version}"
    manifest = evidence.manifests.get(version)
    if manifest != release.manifest.to_bytes():
        yield Finding(
            severity=Severity.ERROR,
            code="manifest-missing" if manifest is None else "manifest-altered",
            subject=f"{subject}/{MANIFEST_NAME}",
            message="not what was published: servers that check it refuse to load the version, and "
            "nothing can return to it",
            hint="fsck --repair writes it back, if the files are as they were published",
        )
    expected = {f"{subject}/{f.path}": f.size for f in release.manifest.files}
    found = {o.key: o.size for o in evidence.holdings.folders.get(version, ())}
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) == found.get(key) or key.endswith((MANIFEST_NAME, SIGNATURE_NAME)):
            continue
        yield altered_object(key, expected.get(key), found.get(key))


def altered_object(key: str, expected: int | None, found: int | None) -> Finding:
    """A file that is missing, too many, or not what was published."""
    if expected is None:
        code, text = "object-extra", f"{found} bytes that are not of the release"
        hint = "delete it when no load runs; whoever wrote it can write to your models"
    elif found is None:
        code, text = "object-missing", f"gone; {expected} bytes were published"
        hint = f"tritonpipe rollback to another release; {_NEW_VERSION}"
    else:
        code, text = "object-altered", f"{found} bytes that are not the {expected} published ones"
        hint = f"tritonpipe rollback to another release; {_NEW_VERSION}"
    return Finding(
        severity=Severity.ERROR,
        code=code,
        subject=key,
        message=f"{text}: the version must not be loaded again",
        hint=hint,
    )


def _in_config(evidence: Evidence) -> Iterator[Finding]:
    holdings, model = evidence.holdings, evidence.model
    if holdings.attempt is not None or evidence.held_by:
        return  # what the config says is the business of that attempt, or of the steps'
    release = holdings.releases.get(evidence.expected or 0)
    problem = _config_problem(evidence, release)
    is_other = bool(evidence.named) and evidence.named != (evidence.expected,)
    if problem and not is_other:
        code, text = problem
        yield Finding(
            severity=Severity.ERROR,
            code=code,
            subject=f"{model}/{CONFIG_NAME}",
            message=text,
            hint=f"fsck --repair writes back the one of version {evidence.expected}"
            if release is not None
            else "promote a version of the model",
        )
    elif is_other:
        last = f"version {evidence.expected}" if evidence.expected else "none"
        yield Finding(
            severity=Severity.ERROR,
            code="config-unexpected",
            subject=f"{model}/{CONFIG_NAME}",
            message=f"names version {', '.join(map(str, evidence.named))}, but the last one proven "
            f"was {last}: somebody else wrote it, or the journal is not whole",
            hint=f"decide: tritonpipe rollback {model} --to N, or promote the version you want",
        )
    for version in evidence.named:
        if version not in holdings.folders and not _has_no_files(holdings.releases.get(version)):
            yield Finding(
                severity=Severity.ERROR,
                code="config-names-missing-version",
                subject=f"{model}/{version}",
                message="the config names this version, and its files are gone: a server that "
                "restarts does not serve the model",
                hint=f"tritonpipe rollback {model}; {_NEW_VERSION}",
            )


def _config_problem(evidence: Evidence, release: Release | None) -> tuple[str, str] | None:
    holdings = evidence.holdings
    if holdings.config is None:
        if release is None:
            return None
        return "config-missing", "gone: a server that restarts does not serve the model"
    try:
        named = holdings.committed
    except ConflictError as error:
        return "config-damaged", error.message
    committed = holdings.releases.get(named[0]) if len(named) == 1 else None
    if committed is not None and holdings.config == committed.config.encode():
        return None
    if committed is None and len(named) == 1:
        return None  # a version without a record is a finding of its own
    return "config-altered", "not as it was released: it does not have the release's digest"


def _has_no_files(release: Release | None) -> bool:
    return release is not None and not release.manifest.files


def _in_marker(evidence: Evidence) -> Iterator[Finding]:
    key = f"{evidence.model}/{WARMUP_MARKER}"
    config = evidence.holdings.config or b""
    if b'"../' in config and key not in evidence.objects:
        yield Finding(
            severity=Severity.ERROR,
            code="warmup-marker-missing",
            subject=key,
            message="gone: Triton cannot walk from the warm-up folder to the data of a version, "
            "and the next load of the model fails",
            hint="fsck --repair writes it back",
        )
