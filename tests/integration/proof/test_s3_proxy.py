"""The proxy before the real store: what it lets pass is right, what it breaks is broken so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SettingsError, TritonpipeError, UnavailableError
from pipeline.stores import Store, open_store
from pipeline.testing.s3_faults import Fault, Request
from pipeline.testing.s3_proxy import Choose, S3Proxy

URL = "s3://models/proxied"
WRITER = """
import sys
from pathlib import Path
from pipeline.stores import open_store
open_store("s3://models/proxied").put(sys.argv[1], bytes(1000))
"""


@pytest.fixture
def port(stack: Any) -> int:
    return int(os.environ["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])


@pytest.fixture
def direct(port: int) -> Store:
    return open_store(URL)


@pytest.fixture
def key() -> str:
    return f"{uuid.uuid4().hex}/key"


@contextmanager
def proxied(port: int, choose: Choose, **options: float) -> Iterator[tuple[Store, S3Proxy]]:
    with S3Proxy(port, choose, **options) as proxy, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield open_store(URL), proxy


def always(fault: Fault | None, method: str = "") -> Choose:
    return lambda request: fault if method in {"", request.method} else None


def test_what_passes_is_the_store_itself(
    port: int, direct: Store, key: str, tmp_path: Path
) -> None:
    with proxied(port, always(None)) as (store, proxy):
        store.put(key, b"abc")
        (tmp_path / "large").write_bytes(os.urandom(12 << 20))
        store.put(f"{key}-large", tmp_path / "large")
        assert store.get(key) == b"abc"
        assert store.get(f"{key}-none") is None
        assert store.list_folder(key.split("/")[0]) == direct.list_folder(key.split("/")[0])
    assert direct.get(f"{key}-large") == (tmp_path / "large").read_bytes()
    assert [seen.request.number for seen in proxy.seen[:1]] == [1]
    assert str(proxy.seen[0]).endswith("/key -> 200")
    assert proxy.broken is None


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.INTERNAL_ERROR, UnavailableError),
        (Fault.SLOW_DOWN, UnavailableError),
        (Fault.RESET, UnavailableError),
        (Fault.SILENCE, UnavailableError),
        (Fault.FORBIDDEN, SettingsError),
    ],
)
def test_what_is_refused_never_reaches_the_store(
    port: int, direct: Store, key: str, fault: Fault, error: type[TritonpipeError]
) -> None:
    with proxied(port, always(fault, "PUT"), silence=0.2) as (store, _), pytest.raises(error):
        store.put(key, b"abc")
    assert direct.get(key) is None


def test_a_lost_answer_was_a_write(port: int, direct: Store, key: str) -> None:
    with (
        proxied(port, always(Fault.LOST_ANSWER, "PUT")) as (store, _),
        pytest.raises(UnavailableError),
    ):
        store.put(key, b"abc")
    assert direct.get(key) == b"abc"


@pytest.mark.parametrize("fault", [Fault.TRUNCATED, Fault.CORRUPTED])
def test_an_answer_is_falsified_on_its_way_back(
    port: int, direct: Store, key: str, fault: Fault
) -> None:
    direct.put(key, bytes(1000))
    with proxied(port, always(fault, "GET")) as (store, _):
        try:
            found = store.get(key)
        except UnavailableError:
            assert fault is Fault.TRUNCATED
        else:
            assert found is not None
            assert (len(found), found == bytes(1000)) == (1000, False)
    assert direct.get(key) == bytes(1000)


def test_a_wrong_clock_is_seen_by_the_client_alone(port: int, direct: Store, key: str) -> None:
    direct.put(key, b"abc")
    right = direct.head(key)
    with proxied(port, always(Fault.CLOCK_AHEAD)) as (store, _):
        ahead = store.head(key)
        (listed,) = store.list_folder(key.split("/")[0])
    assert right
    assert ahead
    assert (ahead.last_modified - right.last_modified).total_seconds() == 3600
    assert listed.last_modified == ahead.last_modified


def test_a_listing_that_lags_catches_up(port: int, direct: Store, key: str) -> None:
    folder = key.split("/")[0]
    with proxied(port, always(Fault.STALE_LISTING), lag=0.5) as (store, _):
        store.put(key, b"abc")
        assert store.list_folder(folder) == []
        time.sleep(0.6)
        assert store.list_folder(folder) == direct.list_folder(folder) != []


@pytest.mark.parametrize(
    ("fault", "is_written"), [(Fault.KILL_BEFORE, False), (Fault.KILL_AFTER, True)]
)
def test_a_process_is_killed_before_and_after_its_write(
    port: int, direct: Store, key: str, fault: Fault, *, is_written: bool
) -> None:
    assert kill(port, key, fault) == -signal.SIGKILL
    assert (direct.get(key) is not None) is is_written


def test_an_upload_cut_half_way_is_no_object(port: int, direct: Store, key: str) -> None:
    assert kill(port, key, Fault.KILL_DURING) == -signal.SIGKILL
    assert direct.get(key) is None


def kill(port: int, key: str, fault: Fault) -> int:
    with S3Proxy(port, always(fault, "PUT")) as proxy:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", WRITER, key],
            env=os.environ | {"AWS_ENDPOINT_URL": proxy.url},
        )
        proxy.victim = process.pid
        code = process.wait(timeout=60)
    assert proxy.broken is not None
    assert proxy.broken.request.path.endswith(key)
    return code


def test_nothing_of_the_dead_is_passed_on(port: int, direct: Store, key: str) -> None:
    requests: list[Request] = []

    def choose(request: Request) -> Fault | None:
        requests.append(request)
        return Fault.KILL_BEFORE

    with proxied(port, choose) as (store, _), pytest.raises(UnavailableError):
        store.put(key, b"abc")
    assert len(requests) == 1, "the repetitions come from a process that is gone"
    assert direct.get(key) is None
