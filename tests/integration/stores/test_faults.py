"""Whatever happens to one request, a store tells the truth about what it did."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import SettingsError
from pipeline.stores import Store, open_store
from pipeline.stores.parts import PART
from pipeline.testing.radosgw import RadosGateway
from pipeline.testing.s3_faults import Fault, Request
from pipeline.testing.s3_proxy import S3Proxy

_NUMBERS = itertools.count()
_LARGE = os.urandom(PART + 1)

PASSING = (
    *(Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.RESET, Fault.LOST_ANSWER, Fault.TRUNCATED),
)
"""Faults that go away when the request is repeated."""

Work = Callable[[Store, Path], object]


def _create(store: Store, _folder: Path) -> object:
    return store.create("new", b"created"), store.get("new")


def _replace(store: Store, _folder: Path) -> object:
    found = store.head("old")
    assert found is not None
    return store.replace("old", b"replaced", etag=found.etag), store.get("old")


def _put(store: Store, _folder: Path) -> object:
    store.put("old", b"put")
    return store.get("old")


def _put_large(store: Store, folder: Path) -> object:
    (folder / "large").write_bytes(_LARGE)
    store.put("new", folder / "large")
    return {stored.key: stored.size for stored in store.list_folder("")}["new"]


def _download(store: Store, folder: Path) -> object:
    store.download("large", folder / "target")
    return (folder / "target").read_bytes() == _LARGE


def _list(store: Store, _folder: Path) -> object:
    return [stored.key for stored in store.list_folder("")]


def _delete(store: Store, _folder: Path) -> object:
    store.delete(["old", "absent"])
    return store.get("old")


WORKS: dict[str, tuple[Work, object]] = {
    "create": (_create, (True, b"created")),
    "replace": (_replace, (True, b"replaced")),
    "put": (_put, b"put"),
    "put large": (_put_large, len(_LARGE)),
    "download": (_download, True),
    "list": (_list, ["large", "old"]),
    "delete": (_delete, None),
}


@pytest.fixture
def direct(radosgw: RadosGateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store with two objects."""
    for name, value in radosgw.variables.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://models/faults-{next(_NUMBERS)}")
    _fill(store)
    yield store
    store.delete([stored.key for stored in store.list_folder("")])


def _fill(store: Store) -> None:
    store.put("old", b"old")
    if store.head("large") is None:
        store.put("large", _LARGE)
    store.delete(["new"])


@contextmanager
def proxied(
    radosgw: RadosGateway, url: str, choose: Callable[[Request], Fault | None]
) -> Iterator[tuple[Store, S3Proxy]]:
    """The same store, through a proxy that breaks requests."""
    port = int(re.sub(".*:", "", radosgw.variables["AWS_ENDPOINT_URL"]))
    with pytest.MonkeyPatch.context() as patch, S3Proxy(port, choose) as proxy:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield open_store(url), proxy


def _only(number: int, fault: Fault) -> Callable[[Request], Fault | None]:
    return lambda request: fault if request.number == number else None


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("work", WORKS)
def test_a_fault_that_passes_is_not_noticed(
    radosgw: RadosGateway, direct: Store, tmp_path: Path, work: str, fault: Fault
) -> None:
    do, expected = WORKS[work]
    with proxied(radosgw, direct.url, lambda _: None) as (store, proxy):
        assert do(store, tmp_path) == expected
        requests = len(proxy.seen)
    for number in range(1, requests + 1):
        _fill(direct)
        with proxied(radosgw, direct.url, _only(number, fault)) as (store, proxy):
            assert do(store, tmp_path) == expected, proxy.broken
            assert proxy.broken is not None


def test_refused_credentials_are_not_tried_again(radosgw: RadosGateway, direct: Store) -> None:
    with proxied(radosgw, direct.url, lambda _: Fault.FORBIDDEN) as (store, proxy):
        with pytest.raises(SettingsError, match="refused the credentials"):
            store.put("old", b"x")
        with pytest.raises(SettingsError, match="refused the credentials"):
            store.create_blindly("new", b"x")  # type: ignore[attr-defined]
        assert len(proxy.seen) == 2


def test_a_rival_who_comes_first_wins_although_our_answer_was_lost(
    radosgw: RadosGateway, direct: Store
) -> None:
    def rival(request: Request) -> Fault | None:
        if request.method == "PUT" and request.number == 2:
            direct.put("new", b"the rival's")
            return Fault.RESET
        return None

    with proxied(radosgw, direct.url, rival) as (store, _):
        assert not store.create("new", b"ours")
    assert direct.get("new") == b"the rival's"
