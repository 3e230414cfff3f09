"""Whether the registry says what is served, and why something is not; asked as rarely as possible.

Who serves something, or fails to, tells the registry. One that is killed, or does not reach it
then, cannot; only the tags of the version show that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from pipeline.artifacts import ModelVersion
from pipeline.errors import ModelError, RefusedError
from pipeline.flows.claims import FAILED, REFUSED, SERVING, TAG_PREFIX, claims_of
from pipeline.flows.record import record_reason
from pipeline.registries import Registry
from pipeline.watch.memory import Failure
from pipeline.watch.versions import Versions
from pipeline.watch.wishes import Wish

_REFUSALS: Final = frozenset({RefusedError.__name__, ModelError.__name__})


class Recorded:
    """Remembers which fulfilled wishes the registry knows of."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[str, Wish] = {}

    def add(self, wish: Wish) -> None:
        """A wish was fulfilled and recorded."""
        self._known[wish.model] = wish

    def unrecorded(self, fulfilled: Mapping[str, Wish]) -> frozenset[str]:
        """The names in Triton under which the registry does not say what is served.

        Args:
            fulfilled: The wishes that are, by name in Triton.

        Raises:
            UnavailableError: The registry does not answer.
        """
        self._known = {m: wish for m, wish in self._known.items() if fulfilled.get(m) == wish}
        unknown = fulfilled.keys() - self._known.keys()
        if unknown:
            claimed = self._claimed()
            for wish in (fulfilled[model] for model in unknown):
                if claimed[wish.model] == {(wish.registered_model, wish.version)}:
                    self.add(wish)
        return frozenset(fulfilled.keys() - self._known.keys())

    def _claimed(self) -> Mapping[str, set[tuple[str, int]]]:
        """The versions that say they are served, by name in Triton; one search for all."""
        found = defaultdict[str, set[tuple[str, int]]](set)
        for version in self._registry.tagged_versions(None, {f"{TAG_PREFIX}state": SERVING}):
            for name in claims_of(version.tags):
                found[name].add((version.name, version.version))
        return found


def explain(registry: Registry, versions: Versions, wish: Wish, failure: Failure) -> None:
    """Say on the version that is wished why it is not tried again, unless it says so already.

    Raises:
        UnavailableError: The registry does not answer.
    """
    version = versions.wished(wish)
    if version is not None and not _is_explained(version, failure):
        # What is remembered of it may be from before its failure was recorded.
        version = versions.wished_now(wish)
    if version is None or _is_explained(version, failure):
        return
    state = REFUSED if failure.kind in _REFUSALS else FAILED
    record_reason(registry, version, state, failure.message)
    versions.wished_now(wish)


def _is_explained(version: ModelVersion, failure: Failure) -> bool:
    """Whether it says why, or that it is served under another name."""
    state, reason = (version.tags.get(TAG_PREFIX + name, "") for name in ("state", "reason"))
    is_told = state in {REFUSED, FAILED} and reason != "" and failure.message.startswith(reason)
    return is_told or bool(claims_of(version.tags))
