"""The difference between what is wished and what is published, as a value; asks nobody."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Final

from pipeline.watch.memory import Failure, Memory, Origin
from pipeline.watch.outcomes import LAST_RETRY_SECONDS
from pipeline.watch.published import Published
from pipeline.watch.wishes import Wish, Wishes

SERVING: Final = "serving"
PROMOTING: Final = "promoting"
PENDING: Final = "pending"
RETRYING: Final = "retrying"
REFUSED: Final = "refused"
HELD: Final = "held"
AWAITING: Final = "awaiting approval"
KEPT: Final = "kept"
RETIRING: Final = "retiring"
IMPOSSIBLE: Final = "impossible"

STATES: Final = (
    SERVING, PROMOTING, PENDING, RETRYING, REFUSED, HELD, AWAITING, KEPT, RETIRING, IMPOSSIBLE,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What happens to a model whose alias is removed.

    Attributes:
        unload: Whether it is taken away, instead of being served on.
        unload_after_seconds: For how long it must not have been wished; an alias that is moved by
            deleting and setting it is without a wish for a moment.
    """

    unload: bool = False
    unload_after_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything that a decision rests on.

    Attributes:
        wishes: What the registry wishes.
        published: What the store holds, by name in Triton.
        memory: What failed, and what is served on whose behalf.
        fingerprints: Of the wishes that failed, as they would be tried now, by name in Triton.
        unmet: What versions lack of what is required of them, in words, by name in Triton.
        running: What is being promoted, by name in Triton; None for a model that is taken away.
        unserved: Models that a server should serve by their config, and does not.
        doubted: These, and those of which the last work failed and no server was seen to serve them
            since.
        unrecorded: Names under which a wish is fulfilled and the registry does not say so.
        unwished_since: Since when a model of :attr:`Memory.origins` has not been wished, in seconds
            since 1970.
        now: The same clock's time.
    """

    wishes: Wishes
    published: Mapping[str, Published]
    memory: Memory
    now: float
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    unmet: Mapping[str, str] = field(default_factory=dict)
    running: Mapping[str, Wish | None] = field(default_factory=dict)
    unserved: Set[str] = frozenset()
    doubted: Set[str] = frozenset()
    unrecorded: Set[str] = frozenset()
    unwished_since: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One name in Triton as the loop sees it.

    Attributes:
        model: Name in Triton; or ``NAME@ALIAS`` of the registry for a wish without a legal one.
        wish: What is wished; None if nothing is.
        published: The version that is published; None if there is none.
        state: One of :data:`STATES`.
        reason: Why it is not simply served, in words; empty if it is.
        retry_at: When it is tried again, in seconds since 1970; None if it is not a matter of time.
    """

    model: str
    wish: Wish | None
    published: int | None
    state: str
    reason: str = ""
    retry_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What is to be done.

    Attributes:
        promote: Wishes to be fulfilled now; those that were never tried first.
        retire: Models to be taken away, with what they were served for.
        cancel: Work under way for a wish that is no longer there, with the reason.
        standings: Every model, by name.
    """

    promote: tuple[Wish, ...]
    retire: Mapping[str, Origin]
    cancel: Mapping[str, str]
    standings: tuple[Standing, ...]

    @property
    def wake_at(self) -> float | None:
        """When something is due that no event announces; None for never."""
        return min((s.retry_at for s in self.standings if s.retry_at is not None), default=None)


def difference(seen: Seen, policy: Policy) -> Difference:
    """What is to be done, so that what is published becomes what is wished.

    The newest wish wins over work under way. A version that somebody rolled back from by hand is
    not served again by itself: the alias has to move, or be set on purpose by a promotion. What
    failed is tried again when its time has come, or when the wish is another one.
    """
    standings = [_wished(seen, wish) for wish in seen.wishes.by_model.values()]
    standings += [
        _unwished(seen, model, origin, policy)
        for model, origin in seen.memory.origins.items()
        if model not in seen.wishes.by_model
    ]
    standings += [
        Standing(model=what, wish=None, published=None, state=IMPOSSIBLE, reason=reason)
        for what, reason in seen.wishes.problems.items()
    ]
    due = [s.wish for s in standings if s.state == PENDING and s.wish is not None]
    failures = seen.memory.failures
    return Difference(
        promote=tuple(sorted(due, key=lambda wish: (wish.model in failures, wish.model))),
        retire={s.model: seen.memory.origins[s.model] for s in standings if s.state == RETIRING},
        cancel=dict(_outdated(seen)),
        standings=tuple(sorted(standings, key=lambda standing: standing.model)),
    )


def _wished(seen: Seen, wish: Wish) -> Standing:
    state, reason, retry_at = _state_of(seen, wish)
    published = seen.published.get(wish.model)
    return Standing(
        model=wish.model,
        wish=wish,
        published=published.version if published else None,
        state=state,
        reason=reason,
        retry_at=retry_at,
    )


def _state_of(seen: Seen, wish: Wish) -> tuple[str, str, float | None]:
    if wish.model in seen.running:
        return PROMOTING, "", None
    published = seen.published.get(wish.model)
    missing = _missing(seen, wish.model)
    is_proven = published is not None and is_fulfilled(wish, published)
    if is_proven and not missing:
        return SERVING, "", None
    if published is not None and wish.version in published.taken_back:
        by = published.taken_back[wish.version]
        return HELD, f"{by} rolled back from version {wish.version} to {published.version}", None
    if seen.unmet.get(wish.model):
        return AWAITING, seen.unmet[wish.model], None
    failure = seen.memory.failures.get(wish.model)
    if failure is not None and failure.fingerprint == seen.fingerprints.get(wish.model):
        if is_proven and failure.retry_at is None:
            # It was served: whatever is wrong now can heal.
            failure = replace(failure, retry_at=failure.at + LAST_RETRY_SECONDS)
        if failure.retry_at is None:
            return REFUSED, failure.message, None
        if _is_resting(failure, seen.now):
            return RETRYING, failure.message, failure.retry_at
    return PENDING, missing, None


def _missing(seen: Seen, model: str) -> str:
    """What lacks of a wish whose version is published and proven, in words; empty if nothing."""
    if model in seen.unserved:
        return "the server does not serve what is published"
    return "the registry does not say what is served" if model in seen.unrecorded else ""


def _is_resting(failure: Failure, now: float) -> bool:
    """Whether it is too early to try again; or not again at all."""
    # One that is yet to come was written before the clock was set back.
    return failure.retry_at is None or failure.at <= now < failure.retry_at


def is_fulfilled(wish: Wish, published: Published) -> bool:
    """Whether the version that is wished is the one that is published, and proven."""
    return (
        published.is_proven
        and published.version == wish.version
        and published.registered_model == wish.registered_model
    )


def _unwished(seen: Seen, model: str, origin: Origin, policy: Policy) -> Standing:
    state, reason, retry_at = _state_of_unwished(seen, model, origin, policy)
    published = seen.published.get(model)
    return Standing(
        model=model,
        wish=None,
        published=published.version if published else None,
        state=state,
        reason=reason,
        retry_at=retry_at,
    )


def _state_of_unwished(
    seen: Seen, model: str, origin: Origin, policy: Policy
) -> tuple[str, str, float | None]:
    what = f"{origin.registered_model}@{origin.alias} is no longer wished"
    if not policy.unload:
        return KEPT, f"{what}; it is served on", None
    if not seen.wishes.registered:
        return KEPT, "the registry has no model at all: nothing is taken away", None
    due_at = seen.unwished_since.get(model, seen.now) + policy.unload_after_seconds
    if seen.now < due_at:
        return KEPT, f"{what}; it is served on", due_at
    failure = seen.memory.failures.get(model)
    if failure is not None and not failure.wish and _is_resting(failure, seen.now):
        return KEPT, failure.message, failure.retry_at
    return RETIRING, what, None


def still_served(seen: Seen, policy: Policy) -> Mapping[str, Origin]:
    """On whose behalf something is served that is wished or published, or to be taken away."""
    return {
        model: origin
        for model, origin in seen.memory.origins.items()
        if policy.unload or model in seen.wishes.by_model or model in seen.published
    }


def _outdated(seen: Seen) -> list[tuple[str, str]]:
    found = []
    for model, running in seen.running.items():
        wish = seen.wishes.by_model.get(model)
        if wish is not None and wish != running:
            found.append((model, f"{wish} is wished now"))
        elif wish is None and running is not None:
            found.append((model, f"{running} is no longer wished"))
    return found


def still_failing(seen: Seen) -> Mapping[str, Failure]:
    """The failures that are still about something that is wished and not fulfilled, or to go."""
    found = {}
    for model, failure in seen.memory.failures.items():
        wish, published = seen.wishes.by_model.get(model), seen.published.get(model)
        is_wanted = wish is not None and not (published and is_fulfilled(wish, published))
        is_wanted |= model in seen.unrecorded or model in seen.doubted
        is_to_go = wish is None and not failure.wish and model in seen.memory.origins
        if is_wanted or is_to_go:
            found[model] = failure
    return found
