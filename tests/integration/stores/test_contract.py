"""The laws of stores on real servers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from pipeline.stack import Stack
from pipeline.stores import Store, open_store
from pipeline.testing.radosgw import RadosGateway
from pipeline.testing.store_contract import NO_CONDITIONS, StoreContract

_NUMBERS = itertools.count()


class TestRclone(StoreContract):
    """The embedded server: a folder, which ignores conditions."""

    conditions = NO_CONDITIONS

    @pytest.fixture
    def store(self, stack: Stack) -> Iterator[Store]:
        store = open_store(f"s3://models/contract-{next(_NUMBERS)}")
        yield store
        store.delete([stored.key for stored in store.list_folder("")])


class TestRadosGateway(StoreContract):
    """Ceph: another implementation, which honours them, of ETags without quotation marks."""

    @pytest.fixture
    def store(self, radosgw: RadosGateway, monkeypatch: pytest.MonkeyPatch) -> Store:
        for name, value in radosgw.variables.items():
            monkeypatch.setenv(name, value)
        return open_store(f"s3://models/contract-{next(_NUMBERS)}")
