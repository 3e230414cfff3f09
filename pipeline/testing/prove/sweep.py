"""Breaks a publication at every request, one case after the other in several lanes.

Each case: the broken run, a fresh run that finishes the job, and a look at everything.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Callable
from typing import Final

from pipeline.testing.prove.arena import Arena
from pipeline.testing.prove.breaks import Break
from pipeline.testing.prove.publisher import BUG, REFUSED, SUCCEEDED, Ending, Publisher
from pipeline.testing.prove.scenarios import Case, Lane, Scenario
from pipeline.testing.prove.table import Row
from pipeline.testing.s3_proxy import S3Proxy, Seen

Tell = Callable[[str], None]

_SILENCE: Final = 1.0
"""Seconds until a connection that gets no answer is cut; our clients would wait for longer."""

_LAST_LOOK: Final = 0.2
"""Seconds in which the clients have to see the new version and nothing else."""

_HONEST: Final = ("could not be restored", "is served and confirmed", "are served and confirmed")
"""An error that says so may leave something else committed than what was served before."""


class Sweep:
    """One scenario under all breaks of a list."""

    def __init__(
        self, scenario: Scenario, arena: Arena, publisher: Publisher, *, lanes: int, tell: Tell
    ) -> None:
        self._scenario = scenario
        self._arena = arena
        self._publisher = publisher
        self._lanes = lanes
        self._tell = tell
        self._lock = threading.Lock()

    def requests(self, title: str) -> tuple[Seen, ...]:
        """The requests of an undisturbed run, by number."""
        lane = self._lane(0, f"{title} undisturbed")
        try:
            self._scenario.enter(lane)
            case = self._scenario.next_case(lane)
            lane.allow(*case.allowed, is_expected=case.was is not None)
            with S3Proxy(self._arena.s3_port, lambda _request: None) as proxy:
                ending = self._publisher.start(case.job, proxy.url).wait()
                if ending.outcome != SUCCEEDED:
                    raise RuntimeError(f"{self._scenario.name} does not succeed: {ending}")
            self._scenario.leave(lane, case)
        finally:
            self._end(lane)
        return tuple(sorted(proxy.seen, key=lambda seen: seen.request.number))

    def run(self, breaks: list[Break], title: str) -> Row:
        """Carry out all breaks and count."""
        pending: queue.SimpleQueue[Break] = queue.SimpleQueue()
        for each in breaks:
            pending.put(each)
        with self._arena.counted(title) as row:
            workers = [
                threading.Thread(
                    target=self._work, args=(self._lane(number, title), pending, row), daemon=True
                )
                for number in range(min(self._lanes, len(breaks)))
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
        return row

    def _lane(self, number: int, title: str) -> Lane:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower())
        return Lane(f"{name}-{number}", self._arena, self._publisher)

    def _end(self, lane: Lane) -> None:
        lane.end()
        for model in lane.models:
            self._arena.remove(model)

    def _work(self, lane: Lane, pending: queue.SimpleQueue[Break], row: Row) -> None:
        try:
            self._scenario.enter(lane)
            while True:
                try:
                    each = pending.get_nowait()
                except queue.Empty:
                    break
                problems = self._break(lane, each, row)
                with self._lock:
                    row.words += problems
        except Exception as error:  # noqa: BLE001  a lane that cannot go on is a failure of the row
            with self._lock:
                row.wrong_state += 1
                row.words.append(f"{lane.name} ended: {type(error).__name__}: {error}")
        finally:
            self._end(lane)

    def _break(self, lane: Lane, each: Break, row: Row) -> list[str]:
        case = self._scenario.next_case(lane)
        lane.allow(*case.allowed, is_expected=case.was is not None)
        with S3Proxy(self._arena.s3_port, each.choice(), silence=_SILENCE) as proxy:
            run = self._publisher.start(case.job, proxy.url)
            proxy.victim = run.pid
            ending = run.wait()
            broken = proxy.broken
        where = f"{self._scenario.name}, {each}, {broken or 'at no request'}"
        lied, wrong = self._judge(case, ending)
        finished = self._publisher.start(case.job).wait()
        if finished.outcome != SUCCEEDED:
            wrong.append(f"the next run did not finish: {finished}")
        wrong += self._scenario.problems(self._arena, case)
        lane.allow(case.becomes)
        time.sleep(_LAST_LOOK)
        self._scenario.leave(lane, case)
        with self._lock:
            row.breaks += broken is not None
            row.false_success += bool(lied)
            row.wrong_state += bool(wrong)
        self._tell(f"{where}: {ending} after {ending.seconds:.1f} s, then {finished}")
        return [f"{where}: {problem}" for problem in lied + wrong]

    def _judge(self, case: Case, ending: Ending) -> tuple[list[str], list[str]]:
        """What was wrong about the broken run itself: as a success, and otherwise."""
        if ending.outcome == SUCCEEDED:
            return self._scenario.problems(self._arena, case), []
        if ending.outcome == BUG:
            return [], [f"the broken run had a bug: {ending.words}"]
        if ending.outcome == REFUSED and not any(said in ending.words for said in _HONEST):
            for model in case.models:
                committed = self._arena.committed(model)
                if committed != case.was:
                    return [], [f"it said {ending.words!r}, and {model} is at {committed}"]
        return [], []
