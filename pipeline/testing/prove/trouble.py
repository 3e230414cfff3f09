"""What else goes wrong: bad versions, a server that is killed, a server without disk space.

Each function makes one row of the table.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipeline.flows.journal import PROMOTE
from pipeline.testing.prove.arena import Arena
from pipeline.testing.prove.clients import Watched
from pipeline.testing.prove.entries import Flaw, Recipe
from pipeline.testing.prove.publisher import (
    BUG,
    COLLECT,
    REFUSED,
    SUCCEEDED,
    Ending,
    Job,
    Publisher,
)
from pipeline.testing.prove.scenarios import Lane
from pipeline.testing.prove.state import wrong_model, wrong_version
from pipeline.testing.prove.table import Row

Tell = Callable[[str], None]

_DELAYS: Final = (0.1, 0.4, 0.8, 1.2, 1.6, 2.0, 2.5, 3.0)
"""Seconds after which the server is killed: a publication takes two to three."""

_ROUNDS: Final = 8

_SHORT: Final = 15.0
"""Seconds that a publisher waits for a server of which we know that it will not do it."""

_SMALL_DISK: Final = 6 << 20
_LARGE: Final = 12 << 20


class WatchedLiar(Watched):
    """A version that answers otherwise than it should, until it is taken back."""

    def version_of(self, named: int, factor: float) -> int | None:
        """The version that was named, whatever it answers."""
        return named if factor in {named, -1.0} else None


def bad_versions(arena: Arena, publisher: Publisher, tell: Tell, title: str) -> Row:
    """Versions that raise or abort at load, or answer wrongly: refused, the old one stays."""
    doomed: set[str] = set()
    with arena.counted(title, doomed=doomed) as row:
        for flaw in (Flaw.RAISES, Flaw.ABORTS, Flaw.LIES):
            what = f"a version that {flaw.value}"
            with _serving(f"a-version-that-{flaw.value}", arena, publisher, WatchedLiar) as lane:
                doomed.add(f"{lane.name}/2")
                lane.allow(*((1, 2) if flaw is Flaw.LIES else (1,)))
                ending = _publish(publisher, Recipe(model=lane.name, version=2, flaw=flaw))
                arena.settled(lane.name)
                tell(f"{what}: {ending} after {ending.seconds:.1f} s")
                _judge(row, what, _not_refused(arena, lane.name, ending))
                lane.allow(1, 3)
                _finish(row, arena, lane, publisher, Recipe(model=lane.name, version=3))
    return row


def hanging_version(arena: Arena, publisher: Publisher, tell: Tell, title: str) -> Row:
    """A version whose load never ends: refused, and after a restart all goes on.

    Triton waits for every load before it looks at the repository again, so no model of this server
    changes any more until it is restarted; what is served stays served meanwhile.
    """
    with (
        arena.counted(title) as row,
        _serving("a-version-that-hangs", arena, publisher) as lane,
        _serving("beside-one-that-hangs", arena, publisher) as other,
    ):
        recipe = Recipe(model=lane.name, version=2, flaw=Flaw.HANGS)
        ending = _publish(publisher, recipe, seconds=_SHORT)
        tell(f"a version that hangs: {ending} after {ending.seconds:.1f} s")
        problems = _not_refused(arena, lane.name, ending)
        _judge(row, "a version that hangs", [p for p in problems if "LOADING" not in p])
        other.allow(1, 2)
        beside = _publish(publisher, Recipe(model=other.name, version=2), seconds=_SHORT)
        tell(f"another model meanwhile: {beside} after {beside.seconds:.1f} s")
        _restart(arena, lane, other)
        for each in (lane, other):
            _judge(row, "after the restart", _committed_is_not_served(arena, each.name))
            each.allow(1, 2, 3)
            _finish(row, arena, each, publisher, Recipe(model=each.name, version=3))
    return row


def restarts(arena: Arena, publisher: Publisher, tell: Tell, title: str) -> Row:
    """Triton is killed at some moment of a publication, and started again."""
    with (
        arena.counted(title) as row,
        _serving("restarted", arena, publisher) as lane,
        _serving("beside-a-restart", arena, publisher) as other,
    ):
        for number, delay in enumerate(_DELAYS):
            recipe = Recipe(model=lane.name, version=number + 2)
            lane.allow(number + 1, number + 2)
            run = publisher.start(Job(action=PROMOTE, recipes=(recipe,)))
            time.sleep(delay)
            _restart(arena, lane, other)
            problems = _committed_is_not_served(arena, lane.name)
            ending = run.wait()
            tell(f"Triton killed after {delay:.1f} s: {ending} after {ending.seconds:.1f} s")
            if ending.outcome == SUCCEEDED and wrong_model(arena, lane.name, recipe.version):
                row.false_success += 1
            _judge(row, f"killed after {delay:.1f} s", problems)
            _finish(row, arena, lane, publisher, recipe)
            arena.keep_only(lane.name, recipe.version)
    return row


def full_disk(arena: Arena, publisher: Publisher, tell: Tell, title: str) -> Row | None:
    """The disk to which Triton downloads is full: no answer comes from a cut file."""
    doomed: set[str] = set()
    with (
        arena.counted(title, doomed=doomed) as row,
        _serving("without-disk-space", arena, publisher) as lane,
    ):
        doomed.add(f"{lane.name}/2")
        recipe = Recipe(model=lane.name, version=2, ballast=_LARGE)
        with _small_disk(arena.stack.state_directory / "triton" / "tmp") as is_small:
            if not is_small:
                tell("a full disk cannot be tried here: mounting one needs root")
                return None
            ending = _publish(publisher, recipe)
            arena.settled(lane.name)
            tell(f"with a full disk: {ending} after {ending.seconds:.1f} s")
            _judge(row, "with a full disk", _not_refused(arena, lane.name, ending))
        lane.allow(1, 2)
        _finish(row, arena, lane, publisher, recipe)
    return row


def races(arena: Arena, publisher: Publisher, tell: Tell, title: str) -> Row:
    """Two publishers of one model, one of another and garbage collection, all at once."""
    with (
        arena.counted(title) as row,
        _serving("raced", arena, publisher) as lane,
        _serving("raced-beside", arena, publisher) as other,
    ):
        for number in range(_ROUNDS):
            versions = (2 * number + 2, 2 * number + 3)
            recipes = [Recipe(model=lane.name, version=version) for version in versions]
            recipes.append(Recipe(model=other.name, version=versions[0]))
            before = {each.name: arena.committed(each.name) or 0 for each in (lane, other)}
            lane.allow(before[lane.name], *versions)
            other.allow(before[other.name], versions[0])
            jobs = [Job(action=PROMOTE, recipes=(recipe,)) for recipe in recipes]
            jobs.append(Job(action=COLLECT, recipes=tuple(recipes[1:])))
            endings = [run.wait() for run in [publisher.start(job) for job in jobs]]
            tell(f"round {number + 1}: " + "; ".join(map(str, endings)))
            _judge(row, f"round {number + 1}", _wrong_race(arena, before, jobs, endings))
    return row


def _wrong_race(
    arena: Arena, before: dict[str, int], jobs: list[Job], endings: list[Ending]
) -> list[str]:
    problems = [str(ending) for ending in endings if ending.outcome == BUG]
    for model, was in before.items():
        winners = [
            job.recipes[0].version
            for job, ending in zip(jobs, endings, strict=True)
            if job.action == PROMOTE
            and job.recipes[0].model == model
            and ending.outcome == SUCCEEDED
        ]
        committed = arena.committed(model)
        if committed not in (winners or [was]):
            problems.append(f"{winners} of {model} were reported, {committed} is committed")
        problems += wrong_version(arena, model, committed or 0)
        problems += _committed_is_not_served(arena, model)
    return problems


@contextmanager
def _serving(
    name: str, arena: Arena, publisher: Publisher, watched: type[Watched] = Watched
) -> Iterator[Lane]:
    """A lane that serves version 1 of the model of its name, and is taken away in the end."""
    lane = Lane(name, arena, publisher)
    try:
        lane.begin(watched(name), allowed=(1,))
        lane.publish(Recipe(model=name, version=1))
        lane.allow(1)
        yield lane
    finally:
        lane.end()
        arena.remove(name)


def _publish(publisher: Publisher, recipe: Recipe, *, seconds: float = 60.0) -> Ending:
    job = Job(action=PROMOTE, recipes=(recipe,), confirm_seconds=seconds)
    return publisher.start(job).wait()


def _not_refused(arena: Arena, model: str, ending: Ending) -> list[str]:
    problems = [] if ending.outcome == REFUSED else [f"it was not refused: {ending}"]
    if arena.committed(model) != 1:
        problems.append(f"the config names {arena.committed(model)}")
    states = arena.states(model)
    if [v for v, state in states.items() if state == "READY"] != [1]:
        problems.append(f"Triton says {states}")
    return problems


def _judge(row: Row, what: str, problems: list[str]) -> None:
    row.breaks += 1
    row.wrong_state += bool(problems)
    row.words += [f"{what}: {problem}" for problem in problems]


def _finish(row: Row, arena: Arena, lane: Lane, publisher: Publisher, recipe: Recipe) -> None:
    """A good version is served after all."""
    ending = publisher.start(Job(action=PROMOTE, recipes=(recipe,))).wait()
    problems = [] if ending.outcome == SUCCEEDED else [f"the next run did not finish: {ending}"]
    problems += wrong_model(arena, lane.name, recipe.version)
    row.wrong_state += bool(problems)
    row.words += problems
    lane.allow(recipe.version)


def _restart(arena: Arena, *lanes: Lane) -> None:
    """Kill Triton and start it again; nobody asks it anything meanwhile."""
    for lane in lanes:
        lane.pause()
    part = next(part for part in arena.stack.parts() if part.name == "triton")
    identity = part.identity()
    if identity is not None:
        os.kill(identity.pid, signal.SIGKILL)
    arena.stack.up()
    for lane in lanes:
        lane.resume()


def _committed_is_not_served(arena: Arena, model: str) -> list[str]:
    """Why Triton does not serve what the config names; asked again if that changes meanwhile."""
    committed: int | None = None
    while committed != arena.committed(model):
        committed = arena.committed(model)
        arena.settled(model)
    states = arena.states(model)
    if committed is not None and states.get(committed) == "READY":
        return []
    return [f"{model}/{committed} is committed, Triton says {states}"]


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    """Lay a small file system over a folder; False where that is not allowed."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK}", "tmpfs", str(folder)]
    # Fixed words and a folder of ours.
    is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0  # noqa: S603
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)  # noqa: S603, S607
