"""What a watcher remembers over restarts."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pipeline.stores.local import LocalStore
from pipeline.watch.memory import Failure, Memory, MemoryStore, Origin

MEMORY_KEY = ".watch/memory.json"

FAILURE = Failure(
    fingerprint="f", wish="w", kind="k", message="m", hint="", attempts=2, at=1.5, retry_at=None
)
ORIGIN = Origin(registered_model="fraud", alias="champion")
MEMORY = Memory(failures={"a": FAILURE}, origins={"b": ORIGIN})


@pytest.fixture
def records(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "records")


def test_the_next_watcher_remembers_the_same(records: LocalStore) -> None:
    assert MemoryStore(records, ".watch").load() == Memory()
    MemoryStore(records, ".watch").keep(MEMORY)
    assert MemoryStore(records, ".watch").load() == MEMORY


def test_it_is_written_only_when_it_changes(records: LocalStore) -> None:
    store = MemoryStore(records, ".watch")
    store.load()
    store.keep(Memory())
    assert records.get(MEMORY_KEY) is None
    store.keep(MEMORY)
    records.delete([MEMORY_KEY])
    store.keep(MEMORY)
    assert records.get(MEMORY_KEY) is None
    store.keep(Memory())
    assert records.get(MEMORY_KEY) is not None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"failures": 3}', b'{"failures": {"a": {}}}'])
def test_damage_is_told_and_forgotten(
    records: LocalStore, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    records.put(MEMORY_KEY, data)
    with caplog.at_level(logging.WARNING):
        assert MemoryStore(records, ".watch").load() == Memory()
    assert MEMORY_KEY in caplog.text


def test_a_fulfilled_wish_has_not_failed() -> None:
    assert MEMORY.with_origin("a", ORIGIN) == Memory(origins={"a": ORIGIN, "b": ORIGIN})
    assert MEMORY.without("b") == Memory(failures={"a": FAILURE})
    assert MEMORY.without_failures(frozenset({"a"})) == Memory(origins={"b": ORIGIN})
