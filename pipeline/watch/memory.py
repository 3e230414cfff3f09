"""What a watcher has to remember: what failed and why, and what it serves on whose behalf.

Kept in one document beside the records, so that the next watcher, after a restart or on another
machine, neither tries again what cannot succeed nor forgets what it may take away.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from pipeline.serialization import from_json, to_json
from pipeline.stores import Store

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A wish that could not be fulfilled, or a model that could not be taken away.

    Attributes:
        fingerprint: Of everything that decides whether it can be: what failed is not tried again
            before this changes. Empty without a wish.
        wish: What it was, in words; empty for a model that nobody wishes any more.
        kind: Name of the error's class.
        message: What happened.
        hint: What to do about it.
        attempts: How often it was tried.
        at: When it failed last, in seconds since 1970.
        retry_at: When it is tried again, likewise; None for not before the wish changes.
    """

    fingerprint: str
    wish: str
    kind: str
    message: str
    hint: str
    attempts: int
    at: float
    retry_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """On whose behalf something is served: the wish that is over when the alias is removed."""

    registered_model: str
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is remembered, by name in Triton.

    Attributes:
        failures: What failed, and was not made good since.
        origins: What was served because an alias wished it.
    """

    failures: Mapping[str, Failure] = field(default_factory=dict)
    origins: Mapping[str, Origin] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def with_failure(self, model: str, failure: Failure) -> Memory:
        """This and one failure more."""
        return replace(self, failures={**self.failures, model: failure})

    def with_origin(self, model: str, origin: Origin) -> Memory:
        """This, and that a wish was fulfilled; what failed under the name before is over."""
        return replace(
            self,
            failures=_without(self.failures, model),
            origins={**self.origins, model: origin},
        )

    def without(self, model: str) -> Memory:
        """This without anything about one name."""
        return replace(
            self,
            failures=_without(self.failures, model),
            origins=_without(self.origins, model),
        )

    def without_failures(self, models: frozenset[str]) -> Memory:
        """This without what failed under some names."""
        kept = {model: f for model, f in self.failures.items() if model not in models}
        return replace(self, failures=kept)


class MemoryStore:
    """Where the memory is kept; written by the watcher that leads, and only when it changes.

    Args:
        records: Beside what.
        name: Of the watchers that share it; begins with a dot, as no model's does.
    """

    def __init__(self, records: Store, name: str) -> None:
        self._records = records
        self.key = f"{name}/memory.json"
        self._kept: Memory | None = None

    def load(self) -> Memory:
        """What was remembered last; nothing if there is none, or if it cannot be read.

        To forget is safe: what failed is tried once more, and nothing is taken away.

        Raises:
            UnavailableError: The store does not answer.
        """
        data = self._records.get(self.key)
        memory = Memory()
        if data is not None:
            try:
                memory = from_json(Memory, json.loads(data))
            except (ValueError, TypeError, LookupError) as error:
                _log.warning("what was remembered in %s cannot be read: %s", self.key, error)
        self._kept = memory
        return memory

    def keep(self, memory: Memory) -> None:
        """Write it, if it is not what is written already.

        Raises:
            UnavailableError: The store does not answer.
        """
        if memory == self._kept:
            return
        self._records.put(self.key, json.dumps(to_json(memory), indent=1).encode())
        self._kept = memory


def _without(values: Mapping[str, _T], model: str) -> dict[str, _T]:
    return {name: value for name, value in values.items() if name != model}
