"""A world in which a publication can be broken at every step, in no time and the same each time.

The store stamps objects in whole seconds of a clock that runs only when somebody writes or sleeps;
the Triton serves at once whatever the config in the store names. Every call to either is a step,
and one step can be made to fail. What the real servers do is the business of the integration tests;
this is for laws about *every* interleaving, of which the real servers show only a few.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from obstore.store import MemoryStore

from pipeline.ensembles import steps_of
from pipeline.errors import ConflictError, UnavailableError
from pipeline.locks import still_held_by
from pipeline.model_config import CONFIG_NAME, served_versions
from pipeline.samples import Array
from pipeline.stores import StoredBytes, StoredObject
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

    def read(self, key: str) -> StoredBytes | None:
        """As in the parent; a step."""
        self.world.step()
        found = super().read(key)
        return None if found is None else replace(found, stored=self._stamped(found.stored))

    def head(self, key: str) -> StoredObject | None:
        """As in the parent; a step."""
        self.world.step()
        found = super().head(key)
        return None if found is None else self._stamped(found)

    def put(self, key: str, data: bytes | Path) -> None:
        """As in the parent; a step that takes a tenth of a second."""
        self.world.step()
        super().put(key, data if isinstance(data, bytes) else data.read_bytes())
        self._written(key, done=True)

    def put_file(self, key: str, path: Path, sent: Callable[[int], None]) -> None:
        """Like :meth:`put`."""
        self.put(key, path)
        sent(path.stat().st_size)

    def download(self, key: str, path: Path) -> None:
        """As in the parent; a step."""
        self.world.step()
        super().download(key, path)

    def create(self, key: str, data: bytes) -> bool:
        """As in the parent; a step."""
        self.world.step()
        return self._written(key, done=super().create(key, data))

    def replace(self, key: str, data: bytes, *, etag: str) -> bool:
        """As in the parent; a step."""
        self.world.step()
        return self._written(key, done=super().replace(key, data, etag=etag))

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
        found = {o.key: ObjectStore.read(self, o.key) for o in ObjectStore.list_folder(self, "")}
        return {key: None if read is None else read.data for key, read in found.items()}

    def _written(self, key: str, *, done: bool) -> bool:
        if done:
            self.writes.append(key)
            self.world.sleep(0.1)
            self._stamps[key] = int(self.world.now)
        return done

    def _stamped(self, stored: StoredObject) -> StoredObject:
        # Another thread may see an object before its writer has stamped it.
        stamp = self._stamps.get(stored.key, int(self.world.now))
        return replace(stored, last_modified=datetime.fromtimestamp(stamp, UTC))


class DamagedReads:
    """While its context lasts, one answer of a store to a read of a config is damaged.

    Attributes:
        reads: How many configs were read so far.
    """

    def __init__(self, store: SimulatedStore, damaged: int) -> None:
        self.reads = 0
        self._store = store
        self._damaged = damaged
        self._read = store.read

    def __enter__(self) -> DamagedReads:
        self._store.read = self._damaged_read  # type: ignore[method-assign]
        return self

    def __exit__(self, *_error: object) -> None:
        self._store.read = self._read  # type: ignore[method-assign]

    def _damaged_read(self, key: str) -> StoredBytes | None:
        found = self._read(key)
        if found is None or not key.endswith("/config.pbtxt"):
            return found
        self.reads += 1
        if self.reads != self._damaged:
            return found
        return StoredBytes(data=bytes([found.data[0] ^ 1]) + found.data[1:], stored=found.stored)


class SimulatedLocks:
    """Locks within one process; whoever would have to wait is refused at once.

    Attributes:
        lost: Set it to make every lock that is held look lost.
    """

    def __init__(self) -> None:
        self.lost = False
        self._taken: set[str] = set()

    @contextmanager
    def hold(
        self, model: str, *, seconds: float, tell: Callable[[str], None]
    ) -> Iterator[SimulatedLocks]:
        """Hold the lock of a model while the body runs."""
        if model in self._taken:
            tell("waiting for another publisher")
            raise ConflictError(still_held_by(model, "another publisher", seconds))
        self._taken.add(model)
        try:
            yield self
        finally:
            self._taken.discard(model)

    def require_held(self) -> None:
        """Return unless :attr:`lost` is set."""
        if self.lost:
            raise ConflictError("the lock was lost")


class SimulatedTriton:
    """Serves what the config in the store names, at once.

    Attributes:
        answers: Outputs of each version that works; a version that is absent cannot be loaded.
    """

    def __init__(self, world: World, store: SimulatedStore, answers: Mapping[int, Array]) -> None:
        self.world = world
        self._store = store
        self.http_address = "simulated"
        self.answers = dict(answers)

    def ready(self, model: str) -> tuple[int, ...]:
        """The versions that can answer; no step."""
        config = self._store.snapshot().get(f"{model}/{CONFIG_NAME}")
        named = () if config is None else served_versions(config.decode())
        return tuple(version for version in named if version in self.answers)

    def served(self, model: str) -> int | None:
        """The version that clients get who name none; no step."""
        return max(self.ready(model), default=None)

    def require_live(self) -> None:
        """A step."""
        self.world.step()

    def is_ready(self, model: str, version: int) -> bool:
        """False also when the step fails, as the real client does."""
        try:
            self.world.step()
        except UnavailableError:
            return False
        return version in self.ready(model)

    def versions(self, model: str) -> dict[int, VersionState]:
        """The index; a step."""
        self.world.step()
        return {v: VersionState(state="READY", reason="") for v in self.ready(model)}

    def all_versions(self) -> dict[str, dict[int, VersionState]]:
        """The index of all models; a step."""
        self.world.step()
        models = {key.partition("/")[0] for key in self._store.snapshot() if "/" in key}
        state = VersionState(state="READY", reason="")
        ready = {model: self.ready(model) for model in models}
        return {model: dict.fromkeys(found, state) for model, found in ready.items() if found}

    def steps(self, model: str) -> tuple[tuple[str, int], ...]:
        """The steps of an ensemble, as its config in the store says; a step."""
        self.world.step()
        config = self._store.snapshot().get(f"{model}/{CONFIG_NAME}")
        found = () if config is None else steps_of(config.decode())
        return tuple((each.model, each.version) for each in found)

    def infer(
        self,
        protocol: str,
        model: str,
        _inputs: Mapping[str, Array],
        *,
        version: int | None = None,
    ) -> Answer:
        """The answer of one version, by default of the newest; a step."""
        self.world.step()
        answering = self.served(model) if version is None else version
        if answering is None or answering not in self.ready(model):
            raise UnavailableError(f"{model} is not served over {protocol}")
        return Answer(version=answering, outputs={"y": self.answers[answering]}, milliseconds=1.0)
