"""What is written is what was sent, or nobody relies on it."""

from __future__ import annotations

import errno
import hashlib
import os

import pytest

from pipeline.errors import UnavailableError
from pipeline.flows.readback import create_verified, put_verified, reads_as
from pipeline.manifest import FileDigest
from pipeline.testing.simulated import SimulatedStore, World


class AlteringStore(SimulatedStore):
    """Keeps other bytes than it is sent, the first few times."""

    times = 0

    def put(self, key: str, data: object) -> None:
        super().put(key, self.kept(bytes(data)))  # type: ignore[call-overload]

    def create(self, key: str, data: bytes) -> bool:
        return super().create(key, self.kept(data))

    def kept(self, data: bytes) -> bytes:
        self.times -= 1
        return bytes(len(data)) if self.times >= 0 else data


@pytest.fixture
def altering(world: World) -> AlteringStore:
    return AlteringStore(world)


@pytest.mark.parametrize("times", [0, 1])
def test_what_was_damaged_once_is_written_again(altering: AlteringStore, times: int) -> None:
    altering.times = times
    put_verified(altering, "put", b"abc")
    altering.times = times
    assert create_verified(altering, "created", b"abc")
    assert altering.snapshot() == {"put": b"abc", "created": b"abc"}


def test_what_is_damaged_each_time_is_an_error(altering: AlteringStore) -> None:
    altering.times = 10
    with pytest.raises(UnavailableError, match="other bytes than were sent"):
        put_verified(altering, "put", b"abc")
    with pytest.raises(UnavailableError, match="other bytes than were sent"):
        create_verified(altering, "created", b"abc")


def test_what_was_there_before_is_left_alone(altering: AlteringStore) -> None:
    altering.put("key", b"old")
    altering.times = 10
    assert not create_verified(altering, "key", b"new")
    assert altering.snapshot() == {"key": b"old"}


def test_a_copy_that_cannot_be_kept_here_says_nothing_of_the_store(
    altering: AlteringStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    altering.put("key", b"abc")
    file = FileDigest(path="key", size=3, sha256=hashlib.sha256(b"abc").hexdigest())
    assert reads_as(altering, "key", file)

    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(
        UnavailableError, match=r"no copy of it can be kept here.*No space"
    ) as caught:
        reads_as(altering, "key", file)
    assert "TMPDIR" in caught.value.hint
