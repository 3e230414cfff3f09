from __future__ import annotations

import json

import pytest
from obstore.store import MemoryStore

from pipeline.locks.choice import known_conditions
from pipeline.stores.objects import ObjectStore
from pipeline.testing.store_contract import ALL_CONDITIONS

SEEN = ".conditions/seen.json"


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore("memory://test", MemoryStore())


def test_what_a_server_honours_is_found_out_once(store: ObjectStore) -> None:
    assert known_conditions(store) == ALL_CONDITIONS
    found_out = store.head(SEEN)
    assert known_conditions(store) == ALL_CONDITIONS
    assert store.head(SEEN) == found_out


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b'{"serv',
        b"\xff",
        b"[]",
        b"null",
        b'{"server": " memory://test"}',
        b'{"server": " memory://test", "conditions": {}}',
        b'{"server": " memory://test", "conditions": {"create": "no"}}',
    ],
)
def test_what_was_remembered_and_damaged_since_is_found_out_anew(
    store: ObjectStore, damaged: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    store.put(SEEN, damaged)
    assert known_conditions(store) == ALL_CONDITIONS
    remembered = json.loads(store.get(SEEN) or b"")
    assert remembered["server"] == " memory://test"
