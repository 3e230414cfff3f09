"""What the registry says of the versions that wait for something, asked as rarely as possible."""

from __future__ import annotations

import time
from collections.abc import Set
from typing import Final

from pipeline.artifacts import ModelVersion
from pipeline.errors import RequestError
from pipeline.registries import Registry, Run
from pipeline.watch.wishes import Rule, Wish

LATELY_SECONDS: Final = 30.0
"""How long an answer is taken for what is true, unless something was notified."""


class Versions:
    """Versions with their tags, and the runs that trained them.

    Every method raises ``UnavailableError`` if the registry does not answer.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[Wish, tuple[float, ModelVersion | None, Run | None]] = {}

    def forget(self) -> None:
        """Ask again: something was notified."""
        self._known.clear()

    def keep_only(self, wishes: Set[Wish]) -> None:
        """Forget what nobody wishes any more."""
        self._known = {wish: known for wish, known in self._known.items() if wish in wishes}

    def wished(self, wish: Wish) -> ModelVersion | None:
        """The version that is wished; None if there is no such version."""
        version, _run = self._lately(wish)
        return version

    def wished_now(self, wish: Wish) -> ModelVersion | None:
        """The same at this moment."""
        self._known.pop(wish, None)
        return self.wished(wish)

    def unmet(self, wish: Wish, rule: Rule) -> str:
        """What the version lacks of what its rule requires, in words; empty if nothing.

        A version that does not exist lacks nothing: its promotion says so.
        """
        if not (rule.requires or rule.metrics):
            return ""
        version, run = self._lately(wish, with_run=bool(rule.metrics))
        if version is None:
            return ""
        tags, metrics = version.tags, run.metrics if run else {}
        lacking = [
            f"its tag {key} is {tags[key]!r}, not {value!r}"
            if key in tags
            else f"it has no tag {key}={value}"
            for key, value in rule.requires.items()
            if tags.get(key) != value
        ]
        lacking += [
            f"its metric {name} is {metrics[name]:g}, not {bound.text}"
            if name in metrics
            else f"its run has no metric {name}"
            for name, bound in rule.metrics.items()
            if name not in metrics or not bound.is_passed_by(metrics[name])
        ]
        return "; ".join(lacking)

    def _lately(
        self, wish: Wish, *, with_run: bool = False
    ) -> tuple[ModelVersion | None, Run | None]:
        now = time.monotonic()
        known = self._known.get(wish)
        if known is not None and now - known[0] < LATELY_SECONDS:
            return known[1], known[2]
        run = None
        try:
            version: ModelVersion | None = self._registry.resolve(wish.request())
        except RequestError:
            version = None
        if with_run and version is not None and version.run_id is not None:
            run = self._registry.run(version.run_id)
        self._known[wish] = (now, version, run)
        return version, run
