"""Runs several publishers in one process, one step at a time, in an order that a seed decides.

Every call to a store or a server is a step, and so is every wait. Between two steps of one actor
any other may do any number of its own; the same seed gives the same order again. An actor can be
killed at a step: from then on every step of it raises ``Killed``.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random

from pipeline.testing.simulated import Killed, World


class Schedule:
    """One order of steps."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311  it has to be the same again, not secret
        self._turns: dict[int, threading.Semaphore] = {}
        self._back = threading.Semaphore(0)
        self._left: dict[str, int] = {}
        self._names: dict[int, str] = {}

    def run(
        self, actors: Mapping[str, Callable[[], None]], *, kills: Mapping[str, int] | None = None
    ) -> dict[str, BaseException | None]:
        """Run all actors to their ends; gives what each raised, if anything.

        Args:
            actors: What each does, by name.
            kills: After how many steps an actor is killed.
        """
        self._left = dict(kills or {})
        endings: dict[str, BaseException | None] = {}
        threads = {
            name: threading.Thread(target=self._act, args=(name, work, endings), daemon=True)
            for name, work in actors.items()
        }
        for thread in threads.values():
            thread.start()
            self._back.acquire()
        waiting = sorted(threads)
        while waiting:
            name = self._random.choice(waiting)
            identity = threads[name].ident
            if identity is not None:
                self._turns[identity].release()
                self._back.acquire()
            if name in endings:
                threads[name].join()
                waiting.remove(name)
        return endings

    @property
    def actor(self) -> str:
        """Whose turn it is; empty outside :meth:`run`, and in threads that an actor has started."""
        return self._names.get(threading.get_ident(), "")

    def step(self) -> None:
        """Let the others have their turns; does nothing for who is no actor."""
        turn = self._turns.get(threading.get_ident())
        if turn is None:
            return
        name = self.actor
        if name in self._left:
            self._left[name] -= 1
            if self._left[name] < 0:
                raise Killed
        self._back.release()
        turn.acquire()

    def _act(
        self, name: str, work: Callable[[], None], endings: dict[str, BaseException | None]
    ) -> None:
        identity = threading.get_ident()
        self._names[identity] = name
        turn = self._turns[identity] = threading.Semaphore(0)
        ending: BaseException | None = None
        try:
            self._back.release()
            turn.acquire()
            work()
        except BaseException as error:  # noqa: BLE001  whatever it is, it is the outcome
            ending = error
        del self._turns[identity], self._names[identity]
        endings[name] = ending
        self._back.release()


class ScheduledWorld(World):
    """A world in which every step is one of a schedule."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule

    def step(self) -> None:
        """One call to a server."""
        self.schedule.step()
        super().step()

    def sleep(self, seconds: float) -> None:
        """Let the clock run, and the others."""
        super().sleep(seconds)
        self.schedule.step()


@contextmanager
def simulated_time(world: World) -> Iterator[None]:
    """Let flows see the clock of a world instead of the real one."""
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("pipeline.flows.") and getattr(module, "time", None) is time
    ]
    for module in modules:
        module.__dict__["time"] = world
    try:
        yield
    finally:
        for module in modules:
            module.__dict__["time"] = time
