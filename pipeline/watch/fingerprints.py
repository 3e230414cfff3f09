"""What decides whether a wish can be fulfilled, asked for as rarely as possible."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pipeline.errors import RequestError
from pipeline.registries import Registry
from pipeline.watch.outcomes import fingerprint_of
from pipeline.watch.wishes import Wish

_TAGS_SECONDS: Final = 30.0
"""How long the tags of a version that failed are taken for what they were."""


class Fingerprints:
    """Fingerprints of wishes, with the tags that their versions have.

    Args:
        registry: Where the tags are.
        conditions: Settings and tools in a form that changes when they do, by name in Triton.
    """

    def __init__(self, registry: Registry, conditions: Callable[[str], str]) -> None:
        self._registry = registry
        self._conditions = conditions
        self._known: dict[str, tuple[Wish, str, float]] = {}

    def lately(self, wishes: Iterable[Wish]) -> Mapping[str, str]:
        """Of several wishes, by name in Triton, as they are or were a moment ago."""
        now = time.monotonic()
        found = {}
        for wish in wishes:
            known = self._known.get(wish.model)
            is_fresh = known and known[0] == wish and now - known[2] < _TAGS_SECONDS
            found[wish.model] = known[1] if known and is_fresh else self.now(wish)
        return found

    def now(self, wish: Wish) -> str:
        """Of one wish as it is.

        Raises:
            UnavailableError: The registry does not answer.
        """
        try:
            tags = self._registry.resolve(wish.request()).tags
        except RequestError:
            tags = {}  # no such version, or it is not ready: the promotion will say so
        fingerprint = fingerprint_of(wish, tags, self._conditions(wish.model))
        self._known[wish.model] = (wish, fingerprint, time.monotonic())
        return fingerprint
