"""Every way in which the answer to a conditional write can be lost, without a server."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import obstore
import pytest
from obstore import exceptions
from obstore.store import MemoryStore

from pipeline.errors import UnavailableError
from pipeline.stores import conditional
from pipeline.stores.objects import ObjectStore

LOST = exceptions.GenericError("connection reset")
ARRIVED, NEVER_ARRIVED, CONFLICT, RIVAL = "arrived", "never arrived", "409", "a rival came first"


@pytest.fixture
def backend() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def unlucky(backend: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ObjectStore]:
    """A store whose first conditional writes go wrong in the ways that are named."""
    real = obstore.put
    monkeypatch.setattr(conditional, "_PAUSES", (0.0,) * 4)

    def store(*fates: str) -> ObjectStore:
        waiting = iter(fates)

        def put(client: Any, key: str, data: bytes, **options: Any) -> Any:
            fate = next(waiting, None)
            if fate == RIVAL:
                real(client, key, b"the rival's")
            if fate == CONFLICT:
                raise exceptions.AlreadyExistsError("returned 409 Conflict")
            if fate == ARRIVED:
                real(client, key, data, **options)
            if fate is not None:
                raise LOST
            return real(client, key, data, **options)

        monkeypatch.setattr(obstore, "put", put)
        return ObjectStore("memory://test", backend)

    return store


ENDING_WELL = [
    fates
    for count in (1, 2, 3)
    for fates in itertools.product((ARRIVED, NEVER_ARRIVED, CONFLICT), repeat=count)
    if ARRIVED not in fates[1:]
]


@pytest.mark.parametrize("fates", ENDING_WELL, ids="-".join)
def test_own_success_is_not_reported_as_a_refusal(
    unlucky: Callable[..., ObjectStore], backend: MemoryStore, fates: tuple[str, ...]
) -> None:
    assert unlucky(*fates).create("k", b"ours")
    assert bytes(obstore.get(backend, "k").bytes()) == b"ours"


@pytest.mark.parametrize("fates", ENDING_WELL, ids="-".join)
def test_the_same_of_replacing(
    unlucky: Callable[..., ObjectStore], backend: MemoryStore, fates: tuple[str, ...]
) -> None:
    etag = (obstore.put(backend, "k", b"old")["e_tag"] or "").strip('"')
    assert unlucky(*fates).replace("k", b"ours", etag=etag)
    assert bytes(obstore.get(backend, "k").bytes()) == b"ours"


def test_a_rivals_success_is_not_reported_as_ours(
    unlucky: Callable[..., ObjectStore], backend: MemoryStore
) -> None:
    assert not unlucky(NEVER_ARRIVED, RIVAL).create("k", b"ours")
    assert bytes(obstore.get(backend, "k").bytes()) == b"the rival's"


def test_what_cannot_be_known_is_an_error(unlucky: Callable[..., ObjectStore]) -> None:
    with pytest.raises(UnavailableError, match="cannot create"):
        unlucky(*[NEVER_ARRIVED] * 9).create("k", b"ours")


def test_the_last_attempt_may_have_arrived(unlucky: Callable[..., ObjectStore]) -> None:
    fates = [NEVER_ARRIVED] * 4 + [ARRIVED]
    assert unlucky(*fates).create("k", b"ours")


def test_a_first_refusal_is_one_even_if_the_bytes_are_equal(
    unlucky: Callable[..., ObjectStore], backend: MemoryStore
) -> None:
    obstore.put(backend, "k", b"ours")
    assert not unlucky().create_blindly("k", b"ours")
