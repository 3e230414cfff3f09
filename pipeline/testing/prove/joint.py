"""Scenarios about several models or several versions at once."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.testing.prove.arena import Arena
from pipeline.testing.prove.clients import Watched
from pipeline.testing.prove.entries import Recipe
from pipeline.testing.prove.publisher import COLLECT, RELEASE, Job
from pipeline.testing.prove.scenarios import Case, Lane, NewVersion
from pipeline.testing.prove.state import wrong_model, wrong_version

_STEPS = ("first", "second")
_OLD, _TARGET, _SERVED = 1, 2, 3


class WatchedEnsemble(Watched):
    """Two steps of the same version: answers are the square of it, and of a mixture no square."""

    def version_of(self, named: int, factor: float) -> int | None:
        """The version of both steps."""
        root = math.isqrt(int(factor))
        return root if named == 1 and root * root == factor else None


class Release(NewVersion):
    """New versions of two models that are the steps of an ensemble."""

    name = "release of two steps"

    def enter(self, lane: Lane) -> None:
        """Serve version 1 of both, and the ensemble."""
        lane.version = 1
        steps = tuple(f"{lane.name}-{step}" for step in _STEPS)
        whole = f"{lane.name}-whole"
        lane.begin(*map(Watched, steps), WatchedEnsemble(whole), allowed=(1,))
        lane.publish(*(Recipe(model=step, version=1) for step in steps))
        lane.publish(Recipe(model=whole, version=1, steps=steps))
        for step in steps:
            lane.arena.keep_only(step, 1)
        lane.allow(1)

    def next_case(self, lane: Lane) -> Case:
        """Both one version up."""
        was, lane.version = lane.version, lane.version + 1
        recipes = tuple(Recipe(model=f"{lane.name}-{s}", version=lane.version) for s in _STEPS)
        return Case(job=Job(action=RELEASE, recipes=recipes), was=was, becomes=lane.version)

    def problems(self, arena: Arena, case: Case) -> list[str]:
        """Both models, and the ensemble as it was released."""
        whole = case.models[0].removesuffix(_STEPS[0]) + "whole"
        problems = [p for step in case.models for p in wrong_model(arena, step, case.becomes)]
        return problems + wrong_model(arena, whole, 1)

    def leave(self, lane: Lane, case: Case) -> None:
        """Keep what is served."""
        for step in case.models:
            lane.arena.keep_only(step, case.becomes)


class Collection(NewVersion):
    """Garbage collection below a model that is served."""

    name = "garbage collection"

    def __init__(self) -> None:
        self._whole: dict[str, Mapping[str, Mapping[str, bytes]]] = {}

    def enter(self, lane: Lane) -> None:
        """Serve three versions, one after another."""
        versions = (_OLD, _TARGET, _SERVED)
        lane.begin(Watched(lane.name), allowed=versions)
        lane.publish(*(Recipe(model=lane.name, version=version) for version in versions))
        lane.arena.settled(lane.name)
        self._whole[lane.name] = lane.arena.snapshot(lane.name)
        lane.allow(_SERVED)

    def next_case(self, lane: Lane) -> Case:
        """Keep what is served and what a rollback returns to."""
        recipe = Recipe(model=lane.name, version=_SERVED)
        return Case(job=Job(action=COLLECT, recipes=(recipe,)), was=_SERVED, becomes=_SERVED)

    def problems(self, arena: Arena, case: Case) -> list[str]:
        """The oldest version is gone whole, the others are as they were."""
        (model,) = case.models
        problems = wrong_model(arena, model, _SERVED, ending=("collected", _OLD))
        problems += wrong_version(arena, model, _TARGET)
        if any(path.is_file() for path in (arena.model_folder(model) / str(_OLD)).rglob("*")):
            problems.append(f"{model}/{_OLD} is not gone")
        return problems

    def leave(self, lane: Lane, case: Case) -> None:
        """Put back what was collected."""
        (model,) = case.models
        lane.arena.restore(model, self._whole[model])
