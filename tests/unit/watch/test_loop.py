"""Round after round: what ends the loop, and what does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from pipeline.errors import UnavailableError
from pipeline.flows.servers import Servers
from pipeline.registries import RegisteredModel
from pipeline.settings import Settings
from pipeline.testing.simulated_repository import SimulatedRepository
from pipeline.watch import loop
from pipeline.watch.bell import Bell
from pipeline.watch.difference import Policy
from pipeline.watch.events import LEADING, ROUND_FAILED, Event
from pipeline.watch.pulse import Pulse
from pipeline.watch.rounds import Plan
from pipeline.watch.wishes import Rule

SETTINGS = Settings()
PLAN = Plan(
    rules=(),
    only=Rule(serve={}, settings=SETTINGS),
    base=SETTINGS,
    policy=Policy(),
    exports=1,
    name=".watch",
)


class NoWorkshop:
    """Nothing is wished, so nothing is started."""

    def warm_up(self) -> None:
        pass

    def close(self) -> None:
        pass


class Loop:
    """A watcher of a registry that answers once to each of its rounds."""

    def __init__(self, scene: SimulatedRepository) -> None:
        self.servers = replace(scene.servers, registry=cast("Any", self))
        self.answers: list[Exception | None] = []
        self.bell = Bell()
        self.pulse = Pulse(interval=0.001)
        self.told: list[Event] = []

    def registered_models(self) -> list[RegisteredModel]:
        answer = self.answers.pop(0)
        if not self.answers:
            self.bell.stop()
        if answer is not None:
            raise answer
        return []

    def watch(self, *answers: Exception | None) -> list[str]:
        self.answers += answers
        loop.watch(
            SETTINGS,
            lambda: PLAN,
            stop_seconds=0.0,
            bell=self.bell,
            pulse=self.pulse,
            tell=self.told.append,
        )
        return [event.kind for event in self.told]


@pytest.fixture
def watcher(scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch) -> Loop:
    made = Loop(scene)

    @contextmanager
    def opened(_settings: Settings) -> Iterator[Servers]:
        yield made.servers

    monkeypatch.setattr(loop, "open_servers", opened)
    monkeypatch.setattr(loop, "Workshop", NoWorkshop)
    return made


@pytest.mark.parametrize("error", [UnavailableError, ValueError, RecursionError, OSError])
def test_a_round_that_fails_is_told_once_and_the_next_one_is_tried(
    watcher: Loop, error: Callable[[str], Exception]
) -> None:
    assert watcher.watch(error("a"), error("a"), error("b"), None) == [
        LEADING, ROUND_FAILED, ROUND_FAILED,
    ]  # fmt: skip
    assert [event.message[-1:] for event in watcher.told] == ["", "a", "b"]
    assert (watcher.pulse.rounds, watcher.pulse.failure) == (1, "")


def test_a_bug_in_a_round_is_called_one_and_keeps_its_traceback(
    watcher: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    watcher.watch(ValueError("surprise"), None)
    told = watcher.told[1]
    assert (told.message, told.hint) == ("a round ended by ValueError: surprise", "please report")
    assert "Traceback" in caplog.text
    caplog.clear()
    watcher.watch(UnavailableError("down"), None)
    assert caplog.text == ""


def test_it_is_not_ready_while_rounds_fail(watcher: Loop) -> None:
    watcher.watch(None, ValueError("surprise"))
    watcher.pulse.is_leading = True
    assert (watcher.pulse.is_alive, watcher.pulse.is_ready) == (True, False)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_ends_the_process_ends_the_loop(watcher: Loop, stop: type[BaseException]) -> None:
    with pytest.raises(stop):
        watcher.watch(cast("Any", stop()), None)


def test_once_raises_what_a_round_raises(watcher: Loop) -> None:
    for error in (UnavailableError("down"), ValueError("surprise")):
        watcher.answers = [error, None]
        with pytest.raises(type(error)):
            loop.watch_once(SETTINGS, PLAN, bell=watcher.bell, tell=watcher.told.append)
