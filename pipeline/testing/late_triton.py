"""A server that is late: the store says one thing, and clients still get another."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.ensembles import NEWEST, Step, steps_of
from pipeline.model_config import CONFIG_NAME, served_versions
from pipeline.samples import Array
from pipeline.testing.simulated import SimulatedStore, SimulatedTriton, World


class LateTriton(SimulatedTriton):
    """Takes over a config only some questions after it was written.

    Args:
        world: Whose steps count.
        store: What it serves from.
        answers: Outputs of each version.
        late: After how many questions each model's config is taken over.
        ensemble: The model whose steps are watched.

    Attributes:
        met: For every moment, the versions that a request to the ensemble would have met; 0 for a
            step that is not served.
    """

    def __init__(
        self,
        world: World,
        store: SimulatedStore,
        answers: Mapping[int, Array],
        *,
        late: Mapping[str, int],
        ensemble: str,
    ) -> None:
        super().__init__(world, store, answers)
        self.met: set[frozenset[int]] = set()
        self._watched = store
        self._late = late
        self._ensemble = ensemble
        self._questions = 0
        self._written: dict[str, list[tuple[int, bytes | None]]] = {model: [] for model in late}

    def ready(self, model: str) -> tuple[int, ...]:
        """The versions that can answer."""
        self._look()
        return self._ready(model)

    def steps(self, model: str) -> tuple[tuple[str, int], ...]:
        """The steps of an ensemble, as its config that was taken over says; a step."""
        super().steps(model)
        self._look()
        config = self._taken(model)
        return tuple((s.model, s.version) for s in steps_of(config.decode())) if config else ()

    def _look(self) -> None:
        self._questions += 1
        objects = self._watched.snapshot()
        for model, written in self._written.items():
            found = objects.get(f"{model}/{CONFIG_NAME}")
            if not written or written[-1][1] != found:
                written.append((self._questions, found))
        config = self._taken(self._ensemble)
        if config is not None:
            self.met.add(frozenset(map(self._version_met, steps_of(config.decode()))))

    def _version_met(self, step: Step) -> int:
        """The version that a request meets in a step; 0 for an error."""
        ready = self._ready(step.model)
        if step.version == NEWEST:
            return max(ready, default=0)
        return step.version if step.version in ready else 0

    def _ready(self, model: str) -> tuple[int, ...]:
        config = self._taken(model)
        return served_versions(config.decode()) if config else ()

    def _taken(self, model: str) -> bytes | None:
        seen = [
            data for at, data in self._written[model] if at <= self._questions - self._late[model]
        ]
        return seen[-1] if seen else None
