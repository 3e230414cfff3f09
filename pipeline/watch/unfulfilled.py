"""Why a version that is wished is not what is published, in words."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import shorten
from typing import Final

from pipeline.artifacts import ModelVersion
from pipeline.flows.claims import FAILED, REFUSED, TAG_PREFIX
from pipeline.registries import Registry
from pipeline.watch.versions import Versions
from pipeline.watch.wishes import Rule, Wish

_REASON_LENGTH: Final = 160
"""Letters of a reason that are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfulfilled:
    """Why a wish is not fulfilled.

    Attributes:
        reason: In words.
        awaits_approval: Whether its rule keeps it back, so that nothing is wrong.
    """

    reason: str
    awaits_approval: bool = False


def why_unfulfilled(registry: Registry, wish: Wish, rule: Rule) -> Unfulfilled:
    """Ask the registry about the one version: one request where the rule requires nothing.

    Raises:
        UnavailableError: The registry does not answer.
    """
    unmet = Versions(registry).unmet(wish, rule)
    if unmet:
        reason = f"version {wish.version} awaits approval: {_short(unmet)}"
        return Unfulfilled(reason=reason, awaits_approval=True)
    version = ModelVersion(
        name=wish.registered_model, version=wish.version, run_id=None, source="", tags={}
    )
    tags = registry.tags_now(version) or {}
    state = tags.get(f"{TAG_PREFIX}state")
    if state not in {REFUSED, FAILED}:
        return Unfulfilled(reason=f"version {wish.version} is wished: promote it")
    outcome = "was refused" if state == REFUSED else "failed"
    told = _short(tags.get(f"{TAG_PREFIX}reason", ""))
    return Unfulfilled(
        reason=f"version {wish.version} is wished, but {outcome}" + (f": {told}" if told else "")
    )


def _short(reason: str) -> str:
    return shorten(reason, _REASON_LENGTH, placeholder=" …")
