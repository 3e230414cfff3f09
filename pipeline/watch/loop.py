"""Runs rounds for ever, or until everything that can be done now is done.

One watcher leads; others wait, and one of them takes over when the leader is gone. Two that lead at
the same moment do no harm, since every model has a lock of its own: it only costs work.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final

from pipeline.errors import ConflictError, TritonpipeError
from pipeline.flows.servers import Servers, open_servers
from pipeline.locks import Held
from pipeline.settings import Settings
from pipeline.watch.bell import Bell
from pipeline.watch.difference import Difference
from pipeline.watch.events import LEADING, ROUND_FAILED, WAITING, Event, Tell
from pipeline.watch.jobs import Workshop
from pipeline.watch.pulse import Pulse
from pipeline.watch.rounds import Plan, Rounds, is_at_rest

_log = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 1.0
"""How long one try to lead takes at most; between two of them a stop is heard."""

_SHORTEST_PAUSE: Final = 0.05


def watch(
    settings: Settings,
    plans: Callable[[], Plan],
    *,
    stop_seconds: float,
    bell: Bell,
    pulse: Pulse,
    tell: Tell,
) -> None:
    """Serve what is wished until the bell says stop.

    A round that fails, since a source does not answer or by a bug, is told, and tried again.

    Args:
        settings: Where the servers are.
        plans: What to look after, asked before each round; which of several watchers act does not
            change.
        stop_seconds: How long work that is about to be served may go on after a stop.
        bell: Wakes and stops it.
        pulse: Kept up to date; says how often to look.
        tell: Told what happens.

    Raises:
        SettingsError: An address or credential is wrong, at the start.
    """
    with open_servers(settings) as servers, closing(Workshop()) as workshop:
        while not bell.is_stopping:
            plan = plans()
            with _leadership(servers, plan, bell, tell) as held:
                if held is None:
                    break
                pulse.is_leading = True
                workshop.warm_up()
                rounds = Rounds(servers, plan, workshop, tell)
                try:
                    _lead(rounds, plans, held, bell, pulse, tell)
                finally:
                    pulse.is_leading = False
                    _wind_up(rounds, stop_seconds if bell.is_stopping else 0.0, bell)


def watch_once(settings: Settings, plan: Plan, *, bell: Bell, tell: Tell) -> Difference:
    """Do what can be done now, each model once; returns how things stand then.

    What is left for later, because it may heal, is not waited for. Another watcher of the same
    models is, for ``lock_seconds`` of the settings: it does the same.

    Raises:
        ConflictError: Another watcher leads all the time.
        TritonpipeError: A source does not answer.
    """
    with (
        open_servers(settings) as servers,
        closing(Workshop()) as workshop,
        _leadership(servers, plan, bell, tell, seconds=settings.lock_seconds) as held,
    ):
        rounds = Rounds(servers, plan, workshop, tell)
        try:
            while held is not None and not bell.is_stopping:
                held.require_held()
                bell.silence()
                found = rounds.step()
                if is_at_rest(found, rounds.work.jobs):
                    return found
                rounds.work.await_news(bell.connection, None)
        finally:
            _wind_up(rounds, 0.0, bell)
    raise KeyboardInterrupt


def _lead(
    rounds: Rounds, plans: Callable[[], Plan], held: Held, bell: Bell, pulse: Pulse, tell: Tell
) -> None:
    """Round after round, until the lead is lost or the bell says stop."""
    while not bell.is_stopping:
        is_notified = bell.silence()
        pause = pulse.interval
        try:
            held.require_held()
        except ConflictError as error:
            tell(Event(kind=WAITING, at=time.time(), message=error.message))
            return
        try:
            rounds.plan = plans()
            found = rounds.step(is_notified=is_notified)
            pulse.went_well(found)
            if found.wake_at is not None:
                pause = min(pause, max(found.wake_at - time.time(), _SHORTEST_PAUSE))
        except TritonpipeError as error:
            _tell_failed(pulse, tell, error.message, error.hint)
        except Exception as error:  # noqa: BLE001  a bug must not end what serves other models
            message = f"a round ended by {type(error).__name__}: {error}"
            if pulse.failure != message:
                _log.warning("a bug in a round", exc_info=error)
            _tell_failed(pulse, tell, message, "please report")
        rounds.work.await_news(bell.connection, pause)


def _tell_failed(pulse: Pulse, tell: Tell, message: str, hint: str) -> None:
    """Tell once why rounds fail."""
    if pulse.failure != message:
        tell(Event(kind=ROUND_FAILED, at=time.time(), message=message, hint=hint))
    pulse.failed(message)


@contextmanager
def _leadership(
    servers: Servers, plan: Plan, bell: Bell, tell: Tell, *, seconds: float = math.inf
) -> Iterator[Held | None]:
    """Hold the lead; None if a stop came first, and an error after so many seconds."""
    is_told = False
    deadline = time.monotonic() + seconds

    def tell_once(text: str) -> None:
        nonlocal is_told
        if not is_told:
            is_told = True
            tell(Event(kind=WAITING, at=time.time(), message=text))

    while not bell.is_stopping:
        try:
            lock = servers.locks.hold(plan.name, seconds=_PATIENCE_SECONDS, tell=tell_once)
            held = lock.__enter__()
        except ConflictError as error:
            if time.monotonic() < deadline:
                continue
            raise ConflictError(
                f"another watcher of these models is at work: {error.message}",
                hint="it does what this one would have done; see how things stand: "
                "tritonpipe status",
            ) from error
        try:
            tell(Event(kind=LEADING, at=time.time()))
            yield held
        finally:
            lock.__exit__(None, None, None)
        return
    yield None


def _wind_up(rounds: Rounds, seconds: float, bell: Bell) -> None:
    """End work under way, and wait for the way back that each piece of it goes."""
    deadline = time.monotonic() + seconds
    rounds.work.stop(at_once=seconds <= 0)
    while rounds.work.jobs:
        left = deadline - time.monotonic()
        if left <= 0:
            rounds.work.stop(at_once=True)
        bell.silence()
        rounds.work.await_news(bell.connection, left if left > 0 else None)
        try:
            rounds.settle()
        except TritonpipeError:
            continue  # it cannot be remembered; the next watcher finds it out again
