"""A store whose listings tell what there was some seconds ago; every object by its key is there.

Such are caches in front of a store, and stores of several sites. For laws about what must not rely
on a listing alone.
"""

from __future__ import annotations

from pipeline.stores import StoredObject
from pipeline.stores.objects import ObjectStore
from pipeline.testing.simulated import SimulatedStore, World


class LaggingStore(SimulatedStore):
    """Lists what there was.

    Attributes:
        lag: Seconds.
    """

    def __init__(self, world: World, lag: float = 0.0) -> None:
        super().__init__(world)
        self.lag = lag
        self._past: list[tuple[float, list[StoredObject]]] = []

    def list_folder(self, folder: str) -> list[StoredObject]:
        """As in the parent, but late; a step."""
        self.world.step()
        seen: list[StoredObject] = []
        for at, objects in self._past:
            if at <= self.world.now - self.lag:
                seen = objects
        return [o for o in seen if not folder or o.key.startswith(f"{folder}/")]

    def delete(self, keys: list[str]) -> None:
        """As in the parent; a step."""
        super().delete(keys)
        self._remember()

    def _written(self, key: str, *, done: bool) -> bool:
        super()._written(key, done=done)
        self._remember()
        return done

    def _remember(self) -> None:
        there = [self._stamped(o) for o in ObjectStore.list_folder(self, "")]
        self._past.append((self.world.now, there))
