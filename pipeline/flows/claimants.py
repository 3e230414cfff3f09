"""Which version the registry calls served under a name: the one that was proven there last.

Nobody holds a lock while the registry is told, since it can take minutes to fail. So whoever writes
looks at the journal of the name afterwards, as often as somebody else has written meanwhile: of
several at once, the last one leaves what is true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Final

from pipeline.artifacts import ModelVersion
from pipeline.flows.claims import (
    RETIRED,
    SUPERSEDED,
    ServedNowhere,
    claim_tag,
    state_tags,
)
from pipeline.flows.fallback import last_confirmed
from pipeline.flows.journal import RETIRE
from pipeline.flows.servers import Servers
from pipeline.registries import Registry

_MOST_LOOKS: Final = 10
"""How often tags are read again that somebody else writes at the same moment."""


def served_as(servers: Servers, name: str) -> tuple[str, int] | None:
    """The registered model and version that were proven last under a name in Triton.

    None if nothing is served there, or something that was published by hand.

    Raises:
        ConflictError: The journal or the record of the release is damaged.
        UnavailableError: The store does not answer.
    """
    version = last_confirmed(servers.journal.entries(name))
    release = None if version is None else servers.journal.release(name, version)
    if release is None or release.manifest.lineage.is_by_hand:
        return None
    lineage = release.manifest.lineage
    return lineage.registered_model, lineage.registered_version


def no_longer(servers: Servers, name: str) -> ServedNowhere:
    """What becomes of a version that was served under a name and no longer is.

    Raises:
        ConflictError: The journal is damaged.
        UnavailableError: The store does not answer.
    """
    entries = servers.journal.entries(name)
    version = last_confirmed(entries)
    if version is not None:
        reason = f"{name} serves version {version}"
        return ServedNowhere(state=SUPERSEDED, reason=reason, at=now())
    why = next((e.reason for e in reversed(entries) if e.action == RETIRE), "")
    reason = f"{name} was taken away" + (f": {why}" if why else "")
    return ServedNowhere(state=RETIRED, reason=reason, at=now())


def agree(servers: Servers, model: str, name: str) -> list[ModelVersion]:
    """End every claim to a name but that of the version that was proven last.

    Who has ended a claim looks again, and makes it once more if that version is proven by then.

    Args:
        servers: The registry, and the journal that decides.
        model: The registered model whose versions are looked at.
        name: The name in Triton.

    Returns:
        The versions whose claims were ended.

    Raises:
        ConflictError: The journal is damaged.
        UnavailableError: The registry or the store does not answer.
    """
    registry, key = servers.registry, claim_tag(name)
    otherwise = partial(no_longer, servers, name)
    ended: dict[int, ModelVersion] = {}
    for _look in range(_MOST_LOOKS):
        # In this order: a claim is made after its proof, so one that is found can be judged.
        found = {v.version: v for v in registry.tagged_versions(model, {key: None})}
        served = served_as(servers, name)
        wrong = [v for v in found.values() if (v.name, v.version) != served]
        for version in wrong:
            left = {k: value for k, value in version.tags.items() if k != key}
            wanted = changes(version.tags, state_tags(left, otherwise))
            registry.record(version, {**wanted, key: None})
            ended[version.version] = version
        is_lost = served is not None and served[0] == model and served[1] not in found
        lost = ended.pop(served[1], None) if served and is_lost else None
        if lost is not None:
            registry.record(lost, {key: lost.tags[key]})
        for version in (*ended.values(), *([lost] if lost else [])):
            settle(registry, version, otherwise)
        if not wrong and lost is None:
            break
    return list(ended.values())


def settle(
    registry: Registry, version: ModelVersion, otherwise: Callable[[], ServedNowhere]
) -> None:
    """Bring the tags of the state in line with the claims that are there by now.

    Args:
        registry: Where to.
        version: The version.
        otherwise: What becomes of it if it is served nowhere; asked after its tags were.

    Raises:
        UnavailableError: The registry does not answer.
    """
    for _look in range(_MOST_LOOKS):
        tags = registry.tags_now(version)
        wrong = {} if tags is None else changes(tags, state_tags(tags, otherwise))
        if not wrong:
            return
        registry.record(version, wrong)


def changes(tags: Mapping[str, str], wanted: Mapping[str, str | None]) -> dict[str, str | None]:
    """What of the tags is not as it has to be."""
    return {key: value for key, value in wanted.items() if tags.get(key) != value}


def now() -> str:
    """This moment, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
