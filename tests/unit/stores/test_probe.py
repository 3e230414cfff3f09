from __future__ import annotations

import time

import pytest
from obstore.store import MemoryStore

from pipeline.errors import UnavailableError
from pipeline.stores import Conditions
from pipeline.stores.objects import ObjectStore
from pipeline.stores.probe import probe_conditions


class Memory(ObjectStore):
    def __init__(self) -> None:
        super().__init__("memory://test", MemoryStore())


class IgnoresAll(Memory):
    """As ``rclone serve s3``."""

    def create_blindly(self, key: str, data: bytes) -> bool:
        self.put(key, data)
        return True

    def replace(self, key: str, data: bytes, *, etag: str) -> bool:
        self.put(key, data)
        return True


class LooksAndWrites(Memory):
    """As servers that check a condition and write in two steps."""

    def create_blindly(self, key: str, data: bytes) -> bool:
        if self.head(key) is not None:
            return False
        time.sleep(0.001)
        self.put(key, data)
        return True


class RefusesEveryETag(Memory):
    def replace(self, key: str, data: bytes, *, etag: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        (Memory(), Conditions(create=True, replace=True, atomic=True)),
        (IgnoresAll(), Conditions(create=False, replace=False, atomic=False)),
        (LooksAndWrites(), Conditions(create=True, replace=True, atomic=False)),
        (RefusesEveryETag(), Conditions(create=True, replace=False, atomic=True)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_probe_sees_through_servers(store: ObjectStore, expected: Conditions) -> None:
    assert probe_conditions(store) == expected
    assert store.list_folder("") == []
    assert expected.suffice == (expected == Conditions(create=True, replace=True, atomic=True))


class Away(Memory):
    def put(self, key: str, data: bytes | object) -> None:
        raise UnavailableError("away")


def test_a_server_that_is_away_is_not_one_that_ignores_conditions() -> None:
    with pytest.raises(UnavailableError, match="away"):
        probe_conditions(Away())
