"""A commit that was damaged on its way is ours to repeat; one of somebody else is not."""

from __future__ import annotations

import pytest

from pipeline.errors import ConflictError
from pipeline.flows import commit as commit_module
from pipeline.flows.commit import commit
from pipeline.flows.publish import read_state
from pipeline.testing.simulated import SimulatedLocks, SimulatedStore, World


class InterferingStore(SimulatedStore):
    """Holds something else right after the first commit than was sent."""

    instead: bytes | None = None

    def create(self, key: str, data: bytes) -> bool:
        return self._interfered(key, done=super().create(key, data))

    def replace(self, key: str, data: bytes, *, etag: str) -> bool:
        return self._interfered(key, done=super().replace(key, data, etag=etag))

    def _interfered(self, key: str, *, done: bool) -> bool:
        if self.instead is not None:
            instead, self.instead = self.instead, None
            self.put(key, instead)
        return done


def config(version: int) -> str:
    return f'name: "m" version_policy {{ specific {{ versions: {version} }} }}'


@pytest.fixture
def interfering(world: World, monkeypatch: pytest.MonkeyPatch) -> InterferingStore:
    monkeypatch.setattr(commit_module, "time", world)
    return InterferingStore(world)


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("damaged", [b"\x80\xff", b"oame: 1", b""])
def test_what_was_damaged_is_written_again(
    interfering: InterferingStore, damaged: bytes, *, is_new: bool
) -> None:
    if not is_new:
        commit(interfering, read_state(interfering, "m"), config(1), held=SimulatedLocks())
    interfering.instead = damaged
    commit(interfering, read_state(interfering, "m"), config(2), held=SimulatedLocks())
    assert read_state(interfering, "m").version == 2


def test_what_somebody_else_has_committed_stays(interfering: InterferingStore) -> None:
    commit(interfering, read_state(interfering, "m"), config(1), held=SimulatedLocks())
    interfering.instead = config(3).encode()
    with pytest.raises(ConflictError, match="somebody else"):
        commit(interfering, read_state(interfering, "m"), config(2), held=SimulatedLocks())
    assert read_state(interfering, "m").version == 3
