"""The kinds of store that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest
from obstore.store import MemoryStore

from pipeline.stores import Store
from pipeline.stores.local import LocalStore
from pipeline.stores.objects import ObjectStore
from pipeline.testing.store_contract import StoreContract


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return ObjectStore("memory://test", MemoryStore())


class TestLocalDirectory(StoreContract):
    clock_step = 0.05
    many = 50

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(tmp_path / "the repository")
