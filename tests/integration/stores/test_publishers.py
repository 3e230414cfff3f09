"""Two publishers at once, on a server that honours conditions and on one that does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipeline.errors import ConflictError, SettingsError
from pipeline.flows.commit import commit
from pipeline.flows.publish import read_state
from pipeline.locks import Held
from pipeline.locks.choice import known_conditions, open_locks
from pipeline.locks.leases import LEASE_SECONDS
from pipeline.model_config import served_version
from pipeline.stack import Stack
from pipeline.stores import Store, open_store
from pipeline.testing.radosgw import RadosGateway

HOLDER = """
import sys, time
from pipeline.locks.choice import open_locks
from pipeline.stores import open_store
repository = sys.argv[1]
locks = open_locks("", repository=repository, records=open_store(repository + "-records"))
with locks.hold("m", seconds=0, tell=print):
    print("held", flush=True)
    time.sleep(300)
"""


class Unlocked:
    """A publisher that believes to hold a lock: what the store alone has to settle."""

    def require_held(self) -> None:
        pass


@pytest.fixture
def repository(radosgw: RadosGateway, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in radosgw.variables.items():
        monkeypatch.setenv(name, value)
    return f"s3://models/publishers-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def records(repository: str) -> Store:
    return open_store(f"{repository}-records")


@contextmanager
def other_holder(repository: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", HOLDER, repository], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_lease_keeps_the_second_publisher_out_and_a_dead_one_is_succeeded(
    repository: str, records: Store
) -> None:
    locks = open_locks("", repository=repository, records=records)
    told: list[str] = []
    with other_holder(repository) as other:
        with (
            pytest.raises(ConflictError, match=f"process {other.pid}"),
            locks.hold("m", seconds=1, tell=told.append),
        ):
            pytest.fail("two hold it")
        os.kill(other.pid, signal.SIGKILL)
        started = time.monotonic()
        with locks.hold("m", seconds=60, tell=told.append) as held:
            held.require_held()
        assert time.monotonic() - started < 2 * LEASE_SECONDS
    assert all(text.endswith(f"process {other.pid}") for text in told)


def test_the_server_is_probed_once(
    repository: str, records: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert known_conditions(records).suffice
    monkeypatch.setattr("pipeline.stores.probe.probe_conditions", None)
    assert known_conditions(open_store(f"{repository}-records")).suffice


def test_of_many_commits_planned_on_one_state_the_server_takes_one(repository: str) -> None:
    store = open_store(repository)
    store.put("m/1/model.onnx", b"graph")
    config = 'name: "m" version_policy {{ specific {{ versions: {0} }} }}'
    held: Held = Unlocked()
    for first in (2, 10):
        planned = read_state(store, "m")
        outcomes: dict[int, str] = {}

        def publish(version: int, planned=planned, outcomes=outcomes) -> None:  # type: ignore[no-untyped-def]
            try:
                commit(open_store(repository), planned, config.format(version), held=held)
            except ConflictError as error:
                outcomes[version] = error.message
            else:
                outcomes[version] = "won"

        threads = [threading.Thread(target=publish, args=(first + n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = [version for version, outcome in outcomes.items() if outcome == "won"]
        assert len(winners) == 1, outcomes
        assert served_version((store.get("m/config.pbtxt") or b"").decode()) == winners[0]
        losers = [outcome for outcome in outcomes.values() if outcome != "won"]
        assert all("somebody else has committed" in outcome for outcome in losers)


def test_a_store_that_ignores_conditions_needs_another_lock(stack: Stack) -> None:
    repository = f"s3://models/publishers-{uuid.uuid4().hex[:8]}"
    locks = open_locks("", repository=repository, records=open_store(f"{repository}-records"))
    with (
        pytest.raises(SettingsError, match="ignores conditional writes") as caught,
        locks.hold("m", seconds=0, tell=print),
    ):
        pytest.fail("held")
    assert "TRITONPIPE_LOCK" in caught.value.hint
