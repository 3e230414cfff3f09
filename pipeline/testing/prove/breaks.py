"""Which request is broken, and how: the points of a sweep, made from the requests of one run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from pipeline.testing.s3_faults import Fault, Request
from pipeline.testing.s3_proxy import Choose, Seen


class Break(Protocol):
    """One way to break a run."""

    def choice(self) -> Choose:
        """For one run through one proxy."""

    def __str__(self) -> str:
        """In words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class At:
    """At one request.

    Attributes:
        number: Which request.
        fault: What happens to it.
        is_lasting: Whether it happens again when the client repeats that request.
    """

    number: int
    fault: Fault
    is_lasting: bool = False

    def choice(self) -> Choose:
        """For one run through one proxy."""
        chosen: list[tuple[str, str, str]] = []

        def choose(request: Request) -> Fault | None:
            if request.number == self.number:
                chosen.append(request.is_same_as)
                return self.fault
            return self.fault if self.is_lasting and request.is_same_as in chosen else None

        return choose

    def __str__(self) -> str:
        return self.fault.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughout:
    """At all requests of a run, in turn.

    Attributes:
        name: In words.
        faults: One after the other, and again from the first; None lets a request pass.
    """

    name: str
    faults: tuple[Fault | None, ...]

    def choice(self) -> Choose:
        """For one run through one proxy."""
        turn = itertools.cycle(self.faults)
        return lambda _request: next(turn)

    def __str__(self) -> str:
        return self.name


def kills(seen: Iterable[Seen]) -> list[Break]:
    """Before, after and, for uploads, half-way through every request."""
    breaks: list[Break] = []
    for request in (each.request for each in seen):
        breaks.append(At(number=request.number, fault=Fault.KILL_BEFORE))
        if _is_upload(request):
            breaks.append(At(number=request.number, fault=Fault.KILL_DURING))
        breaks.append(At(number=request.number, fault=Fault.KILL_AFTER))
    return breaks


def faults(seen: Iterable[Seen]) -> list[Break]:
    """Every fault at every request that it can happen to."""
    return [
        At(number=each.request.number, fault=fault, is_lasting=is_lasting)
        for each in seen
        for fault, is_lasting, can_happen in _FAULTS
        if can_happen(each)
    ]


def wrong_clocks(_seen: Iterable[Seen]) -> list[Break]:
    """A clock that jumps between requests, by one request in three, two and four."""
    ahead, behind = Fault.CLOCK_AHEAD, Fault.CLOCK_BEHIND
    patterns: list[tuple[Fault | None, ...]] = [
        (ahead, behind),
        (behind, ahead),
        (ahead, None),
        (None, ahead),
        (behind, None, None),
        (None, behind, None),
        (ahead, ahead, behind, behind),
        (None, None, ahead, behind, ahead),
    ]
    return [Throughout(name="the store's clock jumps", faults=pattern) for pattern in patterns]


def stale_listings(_seen: Iterable[Seen]) -> list[Break]:
    """Every listing of a run lags."""
    return [Throughout(name="listings lag", faults=(Fault.STALE_LISTING,))] * 6


def _is_upload(request: Request) -> bool:
    return request.method == "PUT" and request.size > 0


def _has_answer(seen: Seen) -> bool:
    return seen.request.method == "GET" and seen.status == 200


def _has_stamp(seen: Seen) -> bool:
    return seen.request.method in {"GET", "HEAD"} and seen.status == 200


def _any(_seen: Seen) -> bool:
    return True


_FAULTS: Final[tuple[tuple[Fault, bool, Callable[[Seen], bool]], ...]] = (
    # Clients repeat what failed in these ways, so it has to go on failing.
    (Fault.INTERNAL_ERROR, True, _any),
    (Fault.SLOW_DOWN, True, _any),
    (Fault.RESET, True, _any),
    (Fault.SILENCE, True, _any),
    (Fault.FORBIDDEN, True, _any),
    # Once is worse: the repetition finds what the first one did.
    (Fault.LOST_ANSWER, False, _any),
    (Fault.TRUNCATED, False, _has_answer),
    (Fault.CORRUPTED, False, _has_answer),
    (Fault.CORRUPTED_UPLOAD, False, lambda seen: _is_upload(seen.request)),
    (Fault.CLOCK_AHEAD, False, _has_stamp),
    (Fault.CLOCK_BEHIND, False, _has_stamp),
    (Fault.STALE_LISTING, False, lambda seen: seen.request.is_listing),
)
