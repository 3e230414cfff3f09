"""Publishers, rollbacks and garbage collection at the same time, and what is allowed then.

At every commit, whoever makes it: the version that it names is in the store whole, and is what its
author wants or what was proven before. In the end: the version that is committed was proven,
whoever reported success was right, and the journal has no event too few.

With a store that honours conditions all but the last holds without any lock, too: then a run that
was overtaken may leave its attempt open in the journal, which is one reason for the locks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final, cast

from pipeline.errors import ConflictError, TritonpipeError
from pipeline.flows.garbage import Collector
from pipeline.flows.journal import CONFIRMED, PROMOTE, ROLLBACK, Journal, open_attempt
from pipeline.flows.progress import silent
from pipeline.flows.publication import Candidate, publish_and_serve
from pipeline.flows.publish import read_state
from pipeline.flows.release import recorded_release, reusable_release
from pipeline.flows.serve import serve
from pipeline.flows.servers import Servers, repository_of
from pipeline.locks import still_held_by
from pipeline.manifest import MANIFEST_NAME, manifest_from_bytes
from pipeline.model_config import CONFIG_NAME, served_version
from pipeline.registries import RegisteredModel
from pipeline.settings import Settings
from pipeline.testing.schedule import Schedule, ScheduledWorld, simulated_time
from pipeline.testing.simulated import Killed, SimulatedStore, SimulatedTriton

FIRST: Final = 1
SETTINGS: Final = Settings(confirm_seconds=1e6, lock_seconds=1e6)


class RacedStore(SimulatedStore):
    """A store that honours conditions, and looks at every commit.

    Attributes:
        commits: Author, model and version of every config that was written.
        incomplete: Commits of a version that was not there whole.
    """

    def __init__(self, world: ScheduledWorld) -> None:
        super().__init__(world)
        self._schedule = world.schedule
        self.commits: list[tuple[str, str, int]] = []
        self.incomplete: list[str] = []

    def _written(self, key: str, *, done: bool) -> bool:
        model, _, name = key.partition("/")
        if done and name == CONFIG_NAME:
            objects = self.snapshot()
            version = served_version((objects[key] or b"").decode()) or 0
            self.commits.append((self._schedule.actor, model, version))
            self.incomplete += missing_of(objects, model, version)
        if done:
            # Its author may be killed right after the write.
            self._stamps[key] = int(self.world.now)
        return super()._written(key, done=done)


class CarelessStore(RacedStore):
    """A store that ignores conditions in silence, as ``rclone serve s3`` does."""

    def create(self, key: str, data: bytes) -> bool:
        """Look, then write: two writers may both find nothing."""
        if self.head(key) is not None:
            return False
        self.put(key, data)
        return True

    def replace(self, key: str, data: bytes, *, etag: str) -> bool:  # noqa: ARG002  ignored
        """Write whatever there is."""
        self.put(key, data)
        return True


class WaitingLocks:
    """Locks that one waits for; a killed holder loses them at once."""

    def __init__(self, world: ScheduledWorld) -> None:
        self._world = world
        self._taken: set[str] = set()

    @contextmanager
    def hold(
        self, model: str, *, seconds: float, tell: Callable[[str], None]
    ) -> Iterator[WaitingLocks]:
        """Hold the lock of a model while the body runs."""
        tell("waiting")
        deadline = self._world.now + seconds
        while model in self._taken:
            if self._world.now > deadline:
                raise ConflictError(still_held_by(model, "another publisher", seconds))
            self._world.sleep(0.1)
        self._taken.add(model)
        try:
            yield self
        finally:
            self._taken.discard(model)

    def require_held(self) -> None:
        """Nobody takes them away."""


class NoLocks(WaitingLocks):
    """No lock at all: what a store that honours conditions has to bear."""

    @contextmanager
    def hold(
        self, model: str, *, seconds: float, tell: Callable[[str], None]
    ) -> Iterator[WaitingLocks]:
        """Hold nothing."""
        tell(f"not waiting {seconds} s for {model}")
        yield self


@dataclass(slots=True, kw_only=True)
class Race:
    """One random order of some actors.

    Attributes:
        seed: Decides everything.
        entries: Prepared versions by model and number; the first of each is served before.
        is_locked: Locks that hold and a store without conditions; otherwise the reverse.
    """

    seed: int
    entries: dict[tuple[str, int], Candidate]
    is_locked: bool
    problems: list[str] = field(default_factory=list)

    def run(self) -> list[str]:
        """Race; gives what must not have happened."""
        chance = Random(self.seed)  # noqa: S311  it has to be the same again, not secret
        schedule = Schedule(self.seed)
        world = ScheduledWorld(schedule)
        store = CarelessStore(world) if self.is_locked else RacedStore(world)
        with simulated_time(world):
            servers = self._servers(world, store)
            models = sorted({model for model, _ in self.entries})
            for model in models:
                self._promote(servers, model, FIRST)
            actors = {
                f"{number} {name}": work
                for number, (name, work) in enumerate(self._actors(servers, chance))
            }
            victims = [name for name in actors if chance.random() < 0.2]
            kills = {name: chance.randrange(60) for name in victims}
            endings = schedule.run(actors, kills=kills)
            self.problems += store.incomplete
            self._judge_endings(servers, endings)
            for model in models:
                self._judge_model(servers, store, model, is_peaceful=not victims)
                self._finish(servers, store, model)
        return [f"seed {self.seed}: {problem}" for problem in self.problems]

    def _servers(self, world: ScheduledWorld, store: RacedStore) -> Servers:
        answers = {v: c.golden.outputs["y"] for (_, v), c in self.entries.items()}
        triton = SimulatedTriton(world, store, answers)
        records = CarelessStore(world) if self.is_locked else RacedStore(world)
        return Servers(
            registry=cast("Any", _NoWishes()),
            repository=store,
            journal=Journal(records),
            replicas=cast("Any", (triton,)),
            locks=WaitingLocks(world) if self.is_locked else NoLocks(world),
        )

    def _actors(self, servers: Servers, chance: Random) -> Iterator[tuple[str, Callable[[], None]]]:
        candidates = [key for key in self.entries if key[1] != FIRST]
        for model, version in chance.sample(candidates, chance.choice((2, 4))):
            yield f"{model}/{version}", partial(self._promote, servers, model, version)
        # Without a lock nobody may collect, which commands refuse.
        if self.is_locked and chance.random() < 0.5:
            yield "gc", partial(self._collect, servers)
        if self.is_locked and chance.random() < 0.3:
            model = chance.choice(candidates)[0]
            yield f"{model} back", partial(self._roll_back, servers, model)

    def _promote(self, servers: Servers, model: str, version: int) -> None:
        state = read_state(servers.repository, model)
        reusable = reusable_release(servers, state, version)
        candidate = self.entries[model, version]
        if reusable is not None:
            candidate = Candidate(release=reusable[0], golden=reusable[1], entry=None)
        publish_and_serve(
            servers, candidate, state, action=PROMOTE, settings=SETTINGS, progress=silent
        )

    @staticmethod
    def _roll_back(servers: Servers, model: str) -> None:
        with servers.locks.hold(model, seconds=1e6, tell=lambda _text: None) as held:
            release, golden = recorded_release(servers, model, FIRST)
            serve(
                servers, release, golden, held=held, action=ROLLBACK, seconds=1e6, progress=silent
            )

    @staticmethod
    def _collect(servers: Servers) -> None:
        Collector(
            repository=repository_of(servers),
            registry=servers.registry,
            keep=1,
            lock_seconds=1e6,
            progress=silent,
        ).collect((), dry_run=False)

    def _judge_endings(self, servers: Servers, endings: dict[str, BaseException | None]) -> None:
        for name, ending in endings.items():
            if ending is not None and not isinstance(ending, TritonpipeError | Killed):
                self.problems.append(f"{name} had a bug: {type(ending).__name__}: {ending}")
            model, slash, version = name.partition(" ")[2].partition("/")
            if ending is None and slash and int(version) not in proven(servers, model):
                self.problems.append(f"{name} reported a success that was never proven")

    def _judge_model(
        self, servers: Servers, store: RacedStore, model: str, *, is_peaceful: bool
    ) -> None:
        entries = servers.journal.entries(model)
        committed = read_state(store, model).version
        self.problems += missing_of(store.snapshot(), model, committed or 0)
        if is_peaceful and committed not in proven(servers, model):
            self.problems.append(f"{model}/{committed} is committed, and was never proven")
        if is_peaceful and self.is_locked and open_attempt(entries) is not None:
            self.problems.append(f"the journal of {model} ends with {entries[-1]}")
        numbers = servers.journal.entry_numbers(model)
        if numbers != list(range(1, len(numbers) + 1)):
            self.problems.append(f"the journal of {model} has the numbers {numbers}")
        for author, of, version in store.commits:
            wanted = author.partition(" ")[2] == f"{model}/{version}"
            if of == model and not wanted and version not in proven(servers, model):
                self.problems.append(f"{author} committed {model}/{version}, never proven")

    def _finish(self, servers: Servers, store: RacedStore, model: str) -> None:
        """Whatever was left, the next run serves the newest version."""
        newest = max(version for of, version in self.entries if of == model)
        self._promote(servers, model, newest)
        is_proven = newest in proven(servers, model) or not self.is_locked
        if read_state(store, model).version != newest or not is_proven:
            self.problems.append(f"{model}/{newest} is not served after one more run")


class _NoWishes:
    def registered_models(self) -> list[RegisteredModel]:
        """None."""
        return []


def proven(servers: Servers, model: str) -> set[int]:
    """Versions that ever answered as expected."""
    return {e.version for e in servers.journal.entries(model) if e.event == CONFIRMED}


def missing_of(objects: dict[str, bytes | None], model: str, version: int) -> list[str]:
    """What a version folder lacks of what its manifest says."""
    folder = f"{model}/{version}"
    data = objects.get(f"{folder}/{MANIFEST_NAME}")
    if data is None:
        return [f"{folder} has no manifest"]
    files = manifest_from_bytes(data).files
    return [
        f"{folder}/{file.path} is not as published"
        for file in files
        if len(objects.get(f"{folder}/{file.path}") or b"") != file.size
    ]
