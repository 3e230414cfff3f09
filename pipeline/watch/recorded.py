"""Whether the registry says what is served, and why something is not; asked as rarely as possible.

Who serves something, or fails to, tells the registry. One that is killed, or does not reach it
then, cannot; only the tags of the version show that. What they say, or do not take, is about one
model: no other one waits for it.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Set
from typing import Final

from pipeline.artifacts import ModelVersion
from pipeline.errors import ModelError, RefusedError, TritonpipeError, UnavailableError
from pipeline.flows.claims import FAILED, REFUSED, SERVING, TAG_PREFIX, claim_tag, reason_text
from pipeline.flows.record import record_reason
from pipeline.registries import Registry
from pipeline.watch.events import WARNING, Event, Tell
from pipeline.watch.memory import Failure
from pipeline.watch.outcomes import LAST_RETRY_SECONDS
from pipeline.watch.versions import LATELY_SECONDS, Versions
from pipeline.watch.wishes import Wish

_log = logging.getLogger(__name__)

_REFUSALS: Final = frozenset({RefusedError.__name__, ModelError.__name__})


class Recorded:
    """Remembers which fulfilled wishes the registry knows of."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[str, Wish] = {}
        self._missed: dict[str, Wish] = {}
        self._asked_at = 0.0

    def forget(self) -> None:
        """Ask again for what the registry did not know of: something was notified."""
        self._missed.clear()

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
        unknown = {m: wish for m, wish in fulfilled.items() if m not in self._known}
        is_old = time.monotonic() - self._asked_at >= LATELY_SECONDS
        if unknown and (is_old or not unknown.items() <= self._missed.items()):
            claimed = self._claimed()
            self._asked_at = time.monotonic()
            for wish in unknown.values():
                if claimed[wish.model] == {(wish.registered_model, wish.version)}:
                    self.add(wish)
            self._missed = {m: wish for m, wish in unknown.items() if m not in self._known}
        return frozenset(unknown.keys() - self._known.keys())

    def _claimed(self) -> Mapping[str, set[tuple[str, int]]]:
        """The versions that say they are served, by name in Triton; one search for all."""
        found = defaultdict[str, set[tuple[str, int]]](set)
        for version in self._registry.tagged_versions(None, {f"{TAG_PREFIX}state": SERVING}):
            for name in _claimed_names(version):
                found[name].add((version.name, version.version))
        return found


class Reasons:
    """Lets the registry say why something is not tried again.

    Args:
        registry: Where to.
        versions: What it says now.
        tell: Told of what could not be said.
    """

    def __init__(self, registry: Registry, versions: Versions, tell: Tell) -> None:
        self._registry = registry
        self._versions = versions
        self._tell = tell
        self._rests_until: dict[Wish, float] = {}

    def explain(self, failures: Mapping[Wish, Failure]) -> None:
        """Say on the versions that are wished why they are not tried again, unless they do so.

        One of which that fails is warned of, and left for some minutes.

        Args:
            failures: All wishes that are not tried again, with the reason.
        """
        now = time.monotonic()
        self._rests_until = {
            wish: until
            for wish, until in self._rests_until.items()
            if wish in failures and now < until
        }
        for wish in [wish for wish in failures if wish not in self._rests_until]:
            try:
                self._explain(wish, failures[wish])
            except Exception as error:  # noqa: BLE001  whatever it is, others are not to suffer
                self._rests_until[wish] = now + LAST_RETRY_SECONDS
                self._warn(wish, error)
                if isinstance(error, UnavailableError):
                    return  # the registry may be gone: the others are not tried in this round

    def _explain(self, wish: Wish, failure: Failure) -> None:
        version = self._versions.wished(wish)
        if version is not None and not _is_explained(version, failure):
            # What is remembered of it may be from before its failure was recorded.
            version = self._versions.wished_now(wish)
        if version is None or _is_explained(version, failure):
            return
        state = REFUSED if failure.kind in _REFUSALS else FAILED
        record_reason(self._registry, version, state, failure.message)
        self._versions.wished_now(wish)

    def _warn(self, wish: Wish, error: Exception) -> None:
        is_bug = not isinstance(error, TritonpipeError)
        if is_bug:
            _log.warning("a bug in the record of %s", wish, exc_info=error)
        told = f"{type(error).__name__}: {error}; please report" if is_bug else str(error)
        event = Event(
            kind=WARNING,
            at=time.time(),
            model=wish.model,
            wish=str(wish),
            message=f"why it is not served cannot be recorded: {told}",
        )
        self._tell(event)


def _is_explained(version: ModelVersion, failure: Failure) -> bool:
    """Whether it says why, or that it is served under another name."""
    state, reason = (version.tags.get(TAG_PREFIX + name, "") for name in ("state", "reason"))
    wanted = reason_text(failure.message)
    # Of a reason with more lines than were known when it was recorded, the beginning is there.
    is_told = wanted.startswith(reason) if reason else not wanted
    return (state in {REFUSED, FAILED} and is_told) or bool(_claimed_names(version))


def _claimed_names(version: ModelVersion) -> Set[str]:
    """The names in Triton under which it says that it is served, whatever its claims say."""
    prefix = claim_tag("")
    return {key.removeprefix(prefix) for key in version.tags if key.startswith(prefix)}
