from __future__ import annotations

import pytest

from pipeline.flows import commit, confirm, release, switch, withdrawal
from pipeline.testing.simulated import SimulatedStore, World


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    for module in (commit, confirm, release, switch, withdrawal):
        monkeypatch.setattr(module, "time", world)
    return world


@pytest.fixture
def store(world: World) -> SimulatedStore:
    return SimulatedStore(world)
