"""What servers serve, compared with what is committed; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pipeline.findings import Finding, Severity
from pipeline.flows.evidence import Evidence
from pipeline.triton import VersionState


def server_findings(evidence: Evidence) -> Iterator[Finding]:
    """How servers and the committed config of a model disagree."""
    if evidence.holdings.attempt is not None:
        return  # a commit may just be taking effect
    for address, states in evidence.holdings.servers.items():
        if evidence.named:
            yield from _against_config(evidence, address, states)
        elif evidence.holdings.config is None:
            yield from _without_config(evidence, address, states)


def _against_config(
    evidence: Evidence, address: str, states: Mapping[int, VersionState]
) -> Iterator[Finding]:
    ready = {v for v, state in states.items() if state.state == "READY"}
    others = sorted(ready - set(evidence.named))
    for version in evidence.named:
        if version not in ready:
            yield _not_ready(f"{evidence.model}/{version}", address, states.get(version), others)
    if others and set(evidence.named) <= ready:
        yield Finding(
            severity=Severity.WARNING,
            code="serves-another",
            subject=f"{evidence.model}/{others[-1]}",
            message=f"Triton at {address} serves it, too, though the config does not name it: "
            "clients that name no version get the highest one",
            hint="wait for its next poll, then check again; restart the server if it stays so",
        )


def _not_ready(
    subject: str, address: str, state: VersionState | None, others: list[int]
) -> Finding:
    instead = f"; it serves version {', '.join(map(str, others))} instead" if others else ""
    if state is not None and state.state == "LOADING":
        return Finding(
            severity=Severity.NOTE,
            code="loading",
            subject=subject,
            message=f"Triton at {address} is loading it{instead}",
            hint="wait, then check again",
        )
    if state is not None and state.state == "UNAVAILABLE" and state.reason not in {"", "unloaded"}:
        return Finding(
            severity=Severity.ERROR,
            code="load-failed",
            subject=subject,
            message=f"Triton at {address} could not load it: {state.reason}{instead}",
            hint=f"read the server's log; tritonpipe rollback {subject.partition('/')[0]}",
        )
    return Finding(
        severity=Severity.ERROR,
        code="commit-not-seen",
        subject=subject,
        message=f"Triton at {address} does not serve it, though it is committed{instead}",
        hint="fsck --repair commits again; if that does not help, check that the server polls this "
        "repository",
    )


def _without_config(
    evidence: Evidence, address: str, states: Mapping[int, VersionState]
) -> Iterator[Finding]:
    ready = sorted(v for v, state in states.items() if state.state == "READY")
    if not ready or evidence.holdings.proven:
        return  # for a proven model, the missing config is the finding
    yield Finding(
        severity=Severity.ERROR if evidence.holdings.is_recorded else Severity.WARNING,
        code="withdrawn-but-served",
        subject=f"{evidence.model}/{ready[-1]}",
        message=f"Triton at {address} serves it, though it was never proven and has no config: it "
        "goes on until the last object of the model is gone",
        hint="fsck --repair removes what is left of the model",
    )
