"""What the tags of a model version say about where it is served, as values.

A version can be served under several Triton names at once. Each has a tag of its own, a claim that
only those write who serve or take away something under that name. All other tags of the state are
computed from the claims: the same claims give the same tags, whatever the order of events was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.serialization import from_json, to_json

TAG_PREFIX: Final = "tritonpipe."
_CLAIM_PREFIX: Final = f"{TAG_PREFIX}serves."

SERVING: Final = "serving"
SUPERSEDED: Final = "superseded"
REFUSED: Final = "refused"
FAILED: Final = "failed"
RETIRED: Final = "retired"

_RECORDED: Final = frozenset(
    {
        "state", "reason", "since",
        "triton_model", "triton_version", "alias", "confirmed_at", "latency_milliseconds",
        "max_absolute_error", "parity", "release_digest", "model_digest", "source_digest",
    }
)  # fmt: skip

_REASON_LENGTH: Final = 500

Tags = Mapping[str, str]
Changes = Mapping[str, str | None]
"""What tags become; None for a tag that is removed."""

_MOST_CLAIM: Final = 4096
"""Characters of a claim; a longer one was not written here, and would be slow to read."""


def is_recorded(key: str) -> bool:
    """Whether a tag is written here; every other one below the prefix is the author's."""
    return key.startswith(_CLAIM_PREFIX) or (
        key.startswith(TAG_PREFIX) and key.removeprefix(TAG_PREFIX) in _RECORDED
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That a version is served under one Triton name, and what its last confirmation found.

    Attributes:
        alias: The alias on whose behalf; empty for a promotion of a version, or a rollback.
        since: When it was first confirmed there, in UTC.
        confirmed_at: When it was last confirmed.
        release_digest: Digest of the release.
        max_absolute_error: Largest difference of a live answer from the model's own prediction.
        latency_milliseconds: Median time of one request, by protocol.
    """

    alias: str = ""
    since: str = ""
    confirmed_at: str = ""
    release_digest: str = ""
    max_absolute_error: float = 0.0
    latency_milliseconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedNowhere:
    """What becomes of a version that is served nowhere.

    Attributes:
        state: Why not.
        reason: The same in words.
        at: Since when, in UTC.
    """

    state: str
    reason: str
    at: str


def claim_tag(triton_name: str) -> str:
    """The tag of a claim; MLflow allows all characters that Triton's names can have."""
    return _CLAIM_PREFIX + triton_name


def claim_text(claim: Claim) -> str:
    """The value of a claim's tag."""
    return json.dumps(to_json(claim))


def claims_of(tags: Tags) -> dict[str, Claim]:
    """The claims among the tags of a version, by Triton name."""
    return {
        key.removeprefix(_CLAIM_PREFIX): _claim(value)
        for key, value in sorted(tags.items())
        if key.startswith(_CLAIM_PREFIX)
    }


def _claim(text: str) -> Claim:
    """A claim; an empty one if somebody has edited it, since where it is served is in the key."""
    try:
        found: Claim = from_json(Claim, json.loads(text if len(text) <= _MOST_CLAIM else ""))
    except (ValueError, TypeError, RecursionError):
        return Claim()
    return found


def state_tags(tags: Tags, otherwise: Callable[[], ServedNowhere]) -> dict[str, str | None]:
    """What the tags of the state have to be.

    Args:
        tags: All tags of the version.
        otherwise: What becomes of it; asked if it is served nowhere.
    """
    claims = claims_of(tags)
    if claims:
        return _of_served(claims)
    nowhere = otherwise()
    is_same = tags.get(f"{TAG_PREFIX}state") == nowhere.state
    return _named(
        state=nowhere.state,
        reason=reason_text(nowhere.reason),
        since=tags.get(f"{TAG_PREFIX}since", nowhere.at) if is_same else nowhere.at,
    )


def _of_served(claims: Mapping[str, Claim]) -> dict[str, str | None]:
    newest = max(claims.values(), key=lambda claim: claim.confirmed_at)
    aliases = dict.fromkeys(claim.alias for claim in claims.values() if claim.alias)
    return _named(
        state=SERVING,
        reason=None,
        since=min(claim.since for claim in claims.values()),
        triton_model=", ".join(claims),
        alias=", ".join(aliases) or None,
        confirmed_at=newest.confirmed_at,
        release_digest=newest.release_digest,
        max_absolute_error=f"{newest.max_absolute_error:.3e}",
        latency_milliseconds=latency_text(newest.latency_milliseconds),
    )


def latency_text(latency: Mapping[str, float]) -> str:
    """Milliseconds by protocol, in words."""
    return ", ".join(f"{protocol} {taken:.1f}" for protocol, taken in latency.items())


def _named(**tags: str | None) -> dict[str, str | None]:
    return {
        TAG_PREFIX + name: None if value is None else _writable(value)
        for name, value in tags.items()
    }


def reason_text(reason: str) -> str:
    """What is recorded of a reason: its beginning, in characters that every registry keeps."""
    return _writable(reason[:_REASON_LENGTH])


def _writable(text: str) -> str:
    """A text without what some database or wire refuses.

    Models, files and tags that others have written can hold any character, and it must not be the
    record of an error that fails.
    """
    encodable = text.encode(errors="replace").decode()
    return "".join(c for c in encodable if c in "\n\t" or c.isprintable()).strip()
