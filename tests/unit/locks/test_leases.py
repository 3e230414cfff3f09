"""Laws of leases: one holder at a time, whatever the clocks say, and a dead one is succeeded."""

from __future__ import annotations

import threading
import time

import pytest
from obstore.store import MemoryStore

from pipeline.errors import ConflictError, SettingsError, UnavailableError
from pipeline.locks.leases import LeaseLocks
from pipeline.stores import StoredBytes
from pipeline.stores.objects import ObjectStore

LEASE = 1.0


def deaf(_text: str) -> None:
    pass


class FlakyStore(ObjectStore):
    """A store in memory that can be away."""

    def __init__(self, memory: MemoryStore) -> None:
        super().__init__("memory://records", memory)
        self.is_away = False
        self.loses_answers = False
        self.refuses = False
        self.slow_looks = 0

    def read(self, key: str) -> StoredBytes | None:
        if self.slow_looks:
            self.slow_looks -= 1
            time.sleep(1.3 * LEASE)
        return super().read(key)

    def replace(self, key: str, data: bytes, *, etag: str) -> bool:
        if self.is_away:
            raise UnavailableError("away")
        if self.refuses:
            return False
        done = super().replace(key, data, etag=etag)
        if self.loses_answers:
            # A repeated request finds what the first one wrote.
            return super().replace(key, data, etag=etag)
        return done


@pytest.fixture
def memory() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def store(memory: MemoryStore) -> FlakyStore:
    return FlakyStore(memory)


def locks(store: ObjectStore, *, reliable: bool = True) -> LeaseLocks:
    return LeaseLocks(store, can_rely_on=lambda: reliable, lease_seconds=LEASE)


def test_it_outlives_its_term_while_its_holder_lives(
    store: FlakyStore, memory: MemoryStore
) -> None:
    with locks(store).hold("m", seconds=0, tell=deaf) as held:
        time.sleep(2 * LEASE)
        held.require_held()
        with (
            pytest.raises(ConflictError, match=r"is being published by .*, process"),
            locks(FlakyStore(memory)).hold("m", seconds=1.5 * LEASE, tell=deaf),
        ):
            pytest.fail("two hold it")
        held.require_held()


def test_freed_it_can_be_had_at_once(store: FlakyStore) -> None:
    for _ in range(3):
        started = time.monotonic()
        with locks(store).hold("m", seconds=0, tell=deaf):
            pass
        assert time.monotonic() - started < LEASE


def test_a_dead_holder_is_succeeded_and_would_notice(
    store: FlakyStore, memory: MemoryStore
) -> None:
    with locks(store).hold("m", seconds=0, tell=deaf) as held:
        store.is_away = True  # as if the process stood still: no sign of life comes through
        told: list[str] = []
        with locks(FlakyStore(memory)).hold("m", seconds=10, tell=told.append) as successor:
            with pytest.raises(ConflictError, match="was lost"):
                held.require_held()
            successor.require_held()
            store.is_away = False
            time.sleep(LEASE)
            successor.require_held()  # the first one did not take it back
        assert len(told) == 1


def test_a_living_holder_is_not_succeeded_by_one_whose_looks_take_longer_than_a_lease(
    store: FlakyStore, memory: MemoryStore
) -> None:
    slow = FlakyStore(memory)
    slow.slow_looks = 2
    with locks(store).hold("m", seconds=0, tell=deaf) as held:
        with (
            pytest.raises(ConflictError, match="is being published by"),
            locks(slow).hold("m", seconds=LEASE, tell=deaf),
        ):
            pytest.fail("two hold it")
        held.require_held()


def test_a_machine_that_was_suspended_has_lost_its_lease(
    store: FlakyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.clock_gettime
    with locks(store).hold("m", seconds=0, tell=deaf) as held:
        store.is_away = True
        held.require_held()
        # Of the clocks that cannot be set, only this one runs during a suspend.
        monkeypatch.setattr(
            time, "clock_gettime", lambda i: clock(i) + LEASE * (i == time.CLOCK_BOOTTIME)
        )
        with pytest.raises(ConflictError, match="was lost"):
            held.require_held()


def test_a_write_whose_answer_was_lost_is_still_ours(store: FlakyStore) -> None:
    store.loses_answers = True
    with locks(store).hold("m", seconds=0, tell=deaf) as held:
        time.sleep(1.5 * LEASE)
        held.require_held()


def test_a_renewal_that_did_not_come_through_extends_nothing(store: FlakyStore) -> None:
    with locks(store).hold("m", seconds=0, tell=deaf) as held:
        store.refuses = True
        time.sleep(LEASE)
        with pytest.raises(ConflictError, match="was lost"):
            held.require_held()


def test_of_many_publishers_one_is_inside(memory: MemoryStore) -> None:
    inside, most, done = 0, 0, 0

    def publish() -> None:
        nonlocal inside, most, done
        with locks(FlakyStore(memory)).hold("m", seconds=30, tell=deaf):
            inside += 1
            most = max(most, inside)
            time.sleep(0.02)
            inside -= 1
            done += 1

    threads = [threading.Thread(target=publish) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, done) == (1, 6)


def test_a_store_without_conditions_gives_none(store: FlakyStore) -> None:
    with (
        pytest.raises(SettingsError, match="ignores conditional writes") as caught,
        locks(store, reliable=False).hold("m", seconds=0, tell=deaf),
    ):
        pytest.fail("held")
    assert "TRITONPIPE_LOCK" in caught.value.hint
