"""The rows of the table, in the order in which they are made."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from pipeline.testing.prove import trouble
from pipeline.testing.prove.arena import Arena
from pipeline.testing.prove.breaks import Break, faults, kills, stale_listings, wrong_clocks
from pipeline.testing.prove.entries import Recipe, make_candidate
from pipeline.testing.prove.joint import Collection, Release
from pipeline.testing.prove.publisher import Publisher
from pipeline.testing.prove.scenarios import (
    LargeVersion,
    NewModel,
    NewVersion,
    Rollback,
    Scenario,
)
from pipeline.testing.prove.sweep import Sweep, Tell
from pipeline.testing.prove.table import Row
from pipeline.testing.races import Race
from pipeline.testing.s3_proxy import Seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every row is made with.

    Attributes:
        arena: Where.
        publisher: What is broken.
        lanes: How many cases side by side.
        cases: How many cases at most; 0 for all.
        fault: Only breaks with this in their name.
        tell: Told what happens.
    """

    arena: Arena
    publisher: Publisher
    lanes: int
    cases: int
    fault: str
    tell: Tell


def _sweep(
    scenario: type[Scenario],
    breaks_of: Callable[[Iterable[Seen]], list[Break]],
    title: str,
    means: Means,
    *,
    every: int = 1,
) -> Row:
    # Ensembles are replaced one at a time, so lanes would only wait for each other.
    lanes = 1 if scenario is Release else means.lanes
    sweep = Sweep(scenario(), means.arena, means.publisher, lanes=lanes, tell=means.tell)
    breaks = [b for b in breaks_of(sweep.requests(title)) if means.fault in str(b)]
    if means.cases:
        every = max(1, len(breaks) // means.cases)
    return sweep.run(breaks[::every], title)


def _trouble(
    make: Callable[[Arena, Publisher, Tell, str], Row | None], title: str, means: Means
) -> Row | None:
    return make(means.arena, means.publisher, means.tell, title)


def simulated_races(title: str, means: Means) -> Row:
    """Publishers and garbage collection in random orders; the same seeds each time."""
    started = time.monotonic()
    row = Row(scenario=title)
    with tempfile.TemporaryDirectory(prefix="tritonpipe-prove-") as folder:
        entries = {}
        for number, key in enumerate(itertools.product(("a", "b"), range(1, 5))):
            path = Path(folder) / str(number)
            path.mkdir()
            entries[key] = make_candidate(Recipe(model=key[0], version=key[1]), path)
        for seed in range(means.cases * 5 or _SEEDS):
            problems = Race(seed=seed, entries=entries, is_locked=seed % 3 > 0).run()
            row.breaks += 1
            row.wrong_state += bool(problems)
            row.words += problems
    row.seconds = time.monotonic() - started
    means.tell(f"{row.breaks} random orders of publishers and garbage collection")
    return row


_SEEDS: Final = 400
_CHAPTERS: Final = {"kills": kills, "faults": faults}
_SCENARIOS: Final = (NewModel, NewVersion, LargeVersion, Rollback, Release, Collection)
_TOO_LARGE: Final = (LargeVersion, Release)
"""Every fault at every one of their requests would take an hour."""

_ONE_IN: Final = 7
"""Shares no factor with the number of faults, so that all of them happen."""

PLAN: Final[dict[str, Callable[[str, Means], Row | None]]] = {
    **{
        f"{chapter}: {scenario.name}": partial(_sweep, scenario, breaks_of)
        for chapter, breaks_of in _CHAPTERS.items()
        for scenario in _SCENARIOS
        if not (chapter == "faults" and scenario in _TOO_LARGE)
    },
    f"faults: {Release.name}, one in {_ONE_IN}": partial(_sweep, Release, faults, every=_ONE_IN),
    "the store's clock jumps": partial(_sweep, NewVersion, wrong_clocks),
    "listings lag": partial(_sweep, NewVersion, stale_listings),
    "races, simulated": simulated_races,
    "races": partial(_trouble, trouble.races),
    "bad versions": partial(_trouble, trouble.bad_versions),
    "full disk": partial(_trouble, trouble.full_disk),
    "restarts of Triton": partial(_trouble, trouble.restarts),
    "a version that hangs": partial(_trouble, trouble.hanging_version),
}
"""What makes each row, by its title; what makes Triton restart comes last."""

SHORT: Final = (
    "kills: new model",
    "kills: new version",
    "kills: rollback",
    "faults: new version",
    "races, simulated",
    "bad versions",
)
"""What the short form makes, of each a few cases."""
