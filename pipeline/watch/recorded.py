"""Whether the registry says of what is served that it is; asked only when something has changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from pipeline.flows.claims import SERVING, TAG_PREFIX, claims_of
from pipeline.registries import Registry
from pipeline.watch.wishes import Wish


class Recorded:
    """Remembers which fulfilled wishes the registry knows of.

    A publisher that is killed between proof and record, or does not reach the registry then, has
    told it nothing; only the tags of the version show that.
    """

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
