"""A world in which a publication can be broken at every step, in no time and the same each time.

The store stamps objects in whole seconds of a clock that runs only when somebody writes or sleeps;
the Triton serves at once whatever the config in the store names. Every call to either is a step,
and one step can be made to fail. What the real servers do is the business of the integration tests;
this is for laws about *every* interleaving, of which the real servers show only a few.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from obstore.store import MemoryStore

from pipeline.errors import UnavailableError
from pipeline.model_config import CONFIG_NAME, served_version
from pipeline.samples import Array
from pipeline.stores import StoredObject
from pipeline.stores.objects import ObjectStore
from pipeline.triton import Answer, VersionState


class Killed(BaseException):
    """The process is gone: raised by every step from the fatal one on."""


class Fault(enum.Enum):
    """What happens at the chosen step."""

    ERROR = "this call fails"
    OUTAGE = "this and all later calls fail"
    INTERRUPT = "Ctrl-C"
    KILL = "SIGKILL"


class World:
    """The clock, and which step fails how."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.runs = True
        self.steps = 0
        self.fault: Fault | None = None
        self.at = 0

    def break_at(self, step: int, fault: Fault | None) -> None:
        """Count steps from 0 again, and let one of them fail; None for no fault."""
        self.steps, self.at, self.fault = 0, step, fault

    def step(self) -> None:
        """One call to a server."""
        number, self.steps = self.steps, self.steps + 1
        if self.fault is Fault.KILL and number >= self.at:
            raise Killed
        if self.fault is Fault.OUTAGE and number >= self.at:
            raise UnavailableError("simulated outage")
        if self.fault is Fault.ERROR and number == self.at:
            raise UnavailableError("simulated error")
        if self.fault is Fault.INTERRUPT and number == self.at:
            raise KeyboardInterrupt

    def time(self) -> float:
        """Seconds since 1970; this and the next two stand in for the module ``time``."""
        return self.now

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the clock run, unless it is stopped."""
        if self.runs:
            self.now += seconds


class SimulatedStore(ObjectStore):
    """An object store that stamps objects in whole seconds and remembers the order of writes."""

    def __init__(self, world: World) -> None:
        super().__init__("memory://simulated", MemoryStore())
        self.world = world
        self.writes: list[str] = []
        self._stamps: dict[str, int] = {}

    def get(self, key: str) -> bytes | None:
        """As in the parent; a step."""
        self.world.step()
        return super().get(key)

    def head(self, key: str) -> StoredObject | None:
        """As in the parent; a step."""
        self.world.step()
        found = super().head(key)
        return None if found is None else self._stamped(found)

    def put(self, key: str, data: bytes | Path) -> None:
        """As in the parent; a step that takes a tenth of a second."""
        self.world.step()
        self.writes.append(key)
        super().put(key, data)
        self.world.sleep(0.1)
        self._stamps[key] = int(self.world.now)

    def create(self, key: str, data: bytes) -> bool:
        """As in the parent; a step."""
        self._stamps.setdefault(key, int(self.world.now))
        return super().create(key, data)

    def list_folder(self, folder: str) -> list[StoredObject]:
        """As in the parent; a step."""
        self.world.step()
        return [self._stamped(o) for o in super().list_folder(folder)]

    def delete(self, keys: list[str]) -> None:
        """As in the parent; a step."""
        self.world.step()
        super().delete(keys)

    def snapshot(self) -> dict[str, bytes | None]:
        """All objects and their bytes; no step."""
        return {o.key: ObjectStore.get(self, o.key) for o in ObjectStore.list_folder(self, "")}

    def _stamped(self, stored: StoredObject) -> StoredObject:
        return replace(stored, last_modified=datetime.fromtimestamp(self._stamps[stored.key], UTC))


class SimulatedTriton:
    """Serves what the config in the store names, at once.

    Attributes:
        answers: Outputs of each version that works; a version that is absent cannot be loaded.
    """

    def __init__(self, world: World, store: SimulatedStore, answers: Mapping[int, Array]) -> None:
        self.world = world
        self._store = store
        self.answers = dict(answers)

    def served(self, model: str) -> int | None:
        """The version that clients get; no step."""
        config = self._store.snapshot().get(f"{model}/{CONFIG_NAME}")
        version = None if config is None else served_version(config.decode())
        return version if version in self.answers else None

    def require_live(self) -> None:
        """A step."""
        self.world.step()

    def is_ready(self, model: str, version: int) -> bool:
        """False also when the step fails, as the real client does."""
        try:
            self.world.step()
        except UnavailableError:
            return False
        return self.served(model) == version

    def versions(self, model: str) -> dict[int, VersionState]:
        """The index; a step."""
        self.world.step()
        version = self.served(model)
        return {} if version is None else {version: VersionState(state="READY", reason="")}

    def infer(self, protocol: str, model: str, _inputs: Mapping[str, Array]) -> Answer:
        """The answer of the served version; a step."""
        self.world.step()
        version = self.served(model)
        if version is None:
            raise UnavailableError(f"{model} is not served over {protocol}")
        return Answer(version=version, outputs={"y": self.answers[version]}, milliseconds=1.0)
