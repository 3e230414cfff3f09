"""What is done to the repository while it is broken: one small class each.

A lane goes from case to case on models of its own; several lanes run side by side. A scenario
brings the lane into the state before, says what the publisher shall do, judges what came of it, and
tidies up.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from pipeline.flows.journal import PROMOTE, ROLLBACK
from pipeline.testing.prove.arena import Arena
from pipeline.testing.prove.clients import Watched
from pipeline.testing.prove.entries import Recipe
from pipeline.testing.prove.publisher import SUCCEEDED, Job, Publisher
from pipeline.testing.prove.state import wrong_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to do.

    Attributes:
        job: What the publisher shall do, in the broken run and in the one that finishes.
        was: The version of every model that is served before; None for a new model.
        becomes: The version that is served in the end.
    """

    job: Job
    was: int | None
    becomes: int

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it is about."""
        return tuple(recipe.model for recipe in self.job.recipes)

    @property
    def allowed(self) -> tuple[int, ...]:
        """Versions that may answer while it is done."""
        return (self.becomes,) if self.was is None else (self.was, self.becomes)


class Lane:
    """What one worker works on.

    Attributes:
        name: Its models begin with it.
        arena: Where.
        version: The last one that was used.
        models: Those that requests are sent to now.
    """

    def __init__(self, name: str, arena: Arena, publisher: Publisher) -> None:
        self.name = name
        self.arena = arena
        self.version = 0
        self.models: tuple[str, ...] = ()
        self._publisher = publisher
        self._clients = ExitStack()
        self._watched: tuple[Watched, ...] = ()

    def begin(self, *watched: Watched, allowed: tuple[int, ...]) -> None:
        """Send requests to other models from now on.

        These versions may answer, and none of them has to yet.
        """
        self.end()
        self._watched = watched
        self.models = tuple(each.model for each in watched)
        self.allow(*allowed, is_expected=False)
        self.resume()

    def allow(self, *versions: int, is_expected: bool = True) -> None:
        """Which versions may answer from now on; whether one of them must."""
        for each in self._watched:
            each.allow(*versions, is_expected=is_expected)

    def pause(self) -> None:
        """Send no requests for a while."""
        self._clients.close()

    def resume(self) -> None:
        """Send requests again, over new connections."""
        for each in self._watched:
            self._clients.enter_context(self.arena.clients(each))

    def end(self) -> None:
        """Send no more requests."""
        self.pause()
        self._watched = ()

    def publish(self, *recipes: Recipe) -> None:
        """Serve versions undisturbed, one after another.

        Raises:
            RuntimeError: That failed, and with it the proof.
        """
        for recipe in recipes:
            ending = self._publisher.start(Job(action=PROMOTE, recipes=(recipe,))).wait()
            if ending.outcome != SUCCEEDED:
                raise RuntimeError(f"cannot prepare {recipe.model}/{recipe.version}: {ending}")


class Scenario(Protocol):
    """A way to change the repository.

    Attributes:
        name: What its rows in the table are called.
    """

    name: str

    def enter(self, lane: Lane) -> None:
        """Bring a lane into the state before the first case."""

    def next_case(self, lane: Lane) -> Case:
        """The next thing to do, from the state that the last one led to."""

    def problems(self, arena: Arena, case: Case) -> list[str]:
        """What is not as it should be after the case was done; empty if all is well."""

    def leave(self, lane: Lane, case: Case) -> None:
        """Tidy up after a case, so that polls do not become slower from case to case."""


class NewVersion:
    """The next version of a model that is served."""

    name = "new version"
    ballast = 0

    def enter(self, lane: Lane) -> None:
        """Serve version 1."""
        lane.version = 1
        lane.begin(Watched(lane.name), allowed=(1,))
        lane.publish(Recipe(model=lane.name, version=1))
        lane.arena.keep_only(lane.name, 1)
        lane.allow(1)

    def next_case(self, lane: Lane) -> Case:
        """One version up."""
        was, lane.version = lane.version, lane.version + 1
        recipe = Recipe(model=lane.name, version=lane.version, ballast=self.ballast)
        return Case(job=Job(action=PROMOTE, recipes=(recipe,)), was=was, becomes=lane.version)

    def problems(self, arena: Arena, case: Case) -> list[str]:
        """The model, whole."""
        return wrong_model(arena, case.models[0], case.becomes)

    def leave(self, lane: Lane, case: Case) -> None:
        """Keep what is served."""
        lane.arena.keep_only(lane.name, case.becomes)


class LargeVersion(NewVersion):
    """A version that is uploaded in parts."""

    name = "large new version"
    ballast = 12 << 20


class NewModel(NewVersion):
    """The first version of a model that nobody has served before."""

    name = "new model"

    def enter(self, lane: Lane) -> None:
        """Nothing is served."""

    def next_case(self, lane: Lane) -> Case:
        """Another model."""
        lane.version += 1
        model = f"{lane.name}-{lane.version}"
        lane.begin(Watched(model), allowed=(1,))
        recipe = Recipe(model=model, version=1)
        return Case(job=Job(action=PROMOTE, recipes=(recipe,)), was=None, becomes=1)

    def leave(self, lane: Lane, case: Case) -> None:
        """Take the model away."""
        lane.end()
        lane.arena.remove(case.models[0])


class Rollback(NewVersion):
    """Back to the version before, by the one write that a rollback is."""

    name = "rollback"

    def enter(self, lane: Lane) -> None:
        """Serve version 1, then 2."""
        lane.version = 2
        lane.begin(Watched(lane.name), allowed=(1, 2))
        lane.publish(*(Recipe(model=lane.name, version=version) for version in (1, 2)))
        lane.arena.keep_only(lane.name, 1, 2)
        lane.allow(2)

    def next_case(self, lane: Lane) -> Case:
        """To the other one of the two."""
        was, lane.version = lane.version, 3 - lane.version
        recipe = Recipe(model=lane.name, version=lane.version)
        return Case(job=Job(action=ROLLBACK, recipes=(recipe,)), was=was, becomes=lane.version)

    def leave(self, lane: Lane, case: Case) -> None:
        """Both are still needed."""
        lane.arena.keep_only(case.models[0], 1, 2)
