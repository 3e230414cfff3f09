from __future__ import annotations

import pytest

from pipeline.flows import commit, confirm, release, withdrawal
from pipeline.testing.simulated import SimulatedStore, World
from pipeline.testing.simulated_repository import SimulatedRepository


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> SimulatedRepository:
    """A repository, its records and a Triton, in a time of their own."""
    world = World()
    for module in (commit, confirm, release, withdrawal):
        monkeypatch.setattr(module, "time", world)
    return SimulatedRepository(world, SimulatedStore(world))
