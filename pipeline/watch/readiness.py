"""Whether the servers serve what is published: some models are asked for in each round, in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.errors import UnavailableError
from pipeline.flows.replicas import Replicas
from pipeline.triton import TritonClient

_MODELS_PER_ROUND: Final = 50


class Readiness:
    """Which models a server should serve and does not, as far as they were asked for.

    A model counts as unserved when it was not ready twice in a row: between the two there is at
    least one round, in which a load or a restart can end. A server that does not answer says
    nothing about any model.
    """

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas
        self._missed: dict[str, int] = {}
        self._next = 0

    def unserved(self, published: Mapping[str, int | None]) -> frozenset[str]:
        """The models that are not served; ``published`` are versions by name in Triton."""
        live = [replica for replica in self._replicas if _answers(replica)]
        models = sorted(published) if live else []
        self._missed = {model: n for model, n in self._missed.items() if model in published}
        if models:
            start = self._next % len(models)
            turn = (models[start:] + models[:start])[:_MODELS_PER_ROUND]
            self._next = start + len(turn)
            for model in {*turn, *self._missed}:
                self._ask(live, model, published[model])
        return frozenset(model for model, missed in self._missed.items() if missed >= 2)

    @property
    def doubted(self) -> frozenset[str]:
        """The models that were not seen to be served when they were last asked for."""
        return frozenset(self._missed)

    def doubt(self, model: str) -> None:
        """Ask for a model in the next round, since work on it failed."""
        self._missed[model] = 1

    def forget(self, model: str) -> None:
        """Begin anew with a model, to which something was done."""
        self._missed.pop(model, None)

    def _ask(self, live: list[TritonClient], model: str, version: int | None) -> None:
        if version is None or all(replica.is_ready(model, version) for replica in live):
            self._missed.pop(model, None)
        else:
            self._missed[model] = self._missed.get(model, 0) + 1


def _answers(replica: TritonClient) -> bool:
    try:
        replica.require_live()
    except UnavailableError:
        return False
    return True
