"""The loop on the real MLflow, S3 and Triton: an alias is all that anybody sets."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from pipeline.flows.servers import Servers
from pipeline.watch.notifications import DELIVERY, SIGNATURE, TIMESTAMP, signature_of

pytestmark = pytest.mark.integration

PATIENCE = 120.0
Register = Callable[..., int]


class Watcher:
    """A watcher that runs, and everything that it has told."""

    def __init__(self, command: list[str], arguments: tuple[str, ...], **changes: str) -> None:
        self._process = subprocess.Popen(
            [*command, "watch", "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | changes,
        )
        self.events: list[dict[str, Any]] = []
        self.words: list[str] = []
        self._news: queue.Queue[None] = queue.Queue()
        streams = ((self._process.stdout, self._event), (self._process.stderr, self._word))
        self._readers = [threading.Thread(target=self._read, args=each) for each in streams]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, take: Callable[[str], None]) -> None:
        with stream:
            for line in stream:
                take(line)
                self._news.put(None)

    def _event(self, line: str) -> None:
        self.events.append(json.loads(line))

    def _word(self, line: str) -> None:
        self.words.append(line)

    def told(self, **parts: str) -> list[dict[str, Any]]:
        """The events in which all of these are so."""
        return [e for e in list(self.events) if parts.items() <= e.items()]

    def wait_for(self, times: int = 1, **parts: str) -> dict[str, Any]:
        """The event in which all of these are so, once it was told so often."""
        deadline = time.monotonic() + PATIENCE
        while len(self.told(**parts)) < times:
            left = deadline - time.monotonic()
            assert left > 0, (parts, self.events, self.words)
            with suppress(queue.Empty):
                self._news.get(timeout=min(left, 1.0))
        return self.told(**parts)[times - 1]

    def address(self) -> str:
        """Where it listens."""
        deadline = time.monotonic() + PATIENCE
        while True:
            for word in list(self.words):
                if word.startswith("listening on "):
                    return urlsplit(word.split()[2].rstrip(":")).netloc
            assert time.monotonic() < deadline, self.words
            time.sleep(0.05)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self._process.poll() is None:
            self._process.send_signal(number)
        code = self._process.wait(timeout=PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        if number != signal.SIGKILL:  # its work may end in the midst of anything
            assert not [w for w in self.words if "Traceback" in w], self.words
        return code


@pytest.fixture
def watching(command: list[str]) -> Iterator[Callable[..., Watcher]]:
    """Starts watchers, and stops those that still run."""
    watchers: list[Watcher] = []

    def start(*arguments: str, **changes: str) -> Watcher:
        watchers.append(Watcher(command, ("--interval", "0.3", *arguments), **changes))
        return watchers[-1]

    yield start
    for watcher in watchers:
        assert watcher.end() in {0, -signal.SIGKILL}


@pytest.fixture
def versions(name: str, register: Register, new_classifier: Callable[[int], Any]) -> list[Any]:
    """A registered model with two versions; the models behind them."""
    models = [new_classifier(1), new_classifier(2)]
    assert [register(name, model) for model in models] == [1, 2]
    return models


def answers(servers: Servers, model: str, rows: Any) -> tuple[int, Any]:
    answer = servers.replicas[0].infer("grpc", model, {"X": rows})
    return answer.version, answer.outputs["probabilities"]


def assert_served(servers: Servers, name: str, version: int, model: Any, rows: Any) -> None:
    found, probabilities = answers(servers, name, rows)
    assert found == version
    np.testing.assert_allclose(probabilities, model.predict_proba(rows), 1e-3, 1e-5)


def test_an_alias_is_set_moved_and_moved_back(
    watching: Callable[..., Watcher],
    name: str,
    versions: list[Any],
    registry: MlflowClient,
    servers: Servers,
    rows: Any,
) -> None:
    watcher = watching("--model", name)
    watcher.wait_for(kind="leading")
    for version, times in ((1, 1), (2, 2), (1, 3)):
        registry.set_registered_model_alias(name, "champion", version)
        ended = watcher.wait_for(times, kind="ended", model=name, outcome="promoted")
        assert_served(servers, name, version, versions[version - 1], rows)
        assert ("export" in ended["stages"]) is (times < 3)
        tags = registry.get_model_version(name, str(version)).tags
        assert tags["tritonpipe.state"] == "serving"
    assert registry.get_model_version(name, "2").tags["tritonpipe.state"] == "superseded"
    assert watcher.end() == 0


def test_an_alias_that_flaps_ends_where_it_was_left(
    watching: Callable[..., Watcher],
    name: str,
    versions: list[Any],
    registry: MlflowClient,
    servers: Servers,
    rows: Any,
) -> None:
    watcher = watching("--model", name)
    registry.set_registered_model_alias(name, "champion", 1)
    watcher.wait_for(kind="ended", model=name, outcome="promoted")
    for flap in range(20):
        registry.set_registered_model_alias(name, "champion", 1 + flap % 2)
        time.sleep(0.15)
        version, _probabilities = answers(servers, name, rows)
        assert version in {1, 2}
    deadline = time.monotonic() + PATIENCE
    while answers(servers, name, rows)[0] != 2:
        assert time.monotonic() < deadline, watcher.events
        time.sleep(0.1)
    assert_served(servers, name, 2, versions[1], rows)
    assert watcher.told(kind="ended", outcome="Bug") == []


def test_what_is_refused_stays_refused_and_what_was_served_stays_served(
    watching: Callable[..., Watcher],
    name: str,
    versions: list[Any],
    register: Register,
    registry: MlflowClient,
    servers: Servers,
    rows: Any,
) -> None:
    watcher = watching("--model", name)
    registry.set_registered_model_alias(name, "champion", 1)
    watcher.wait_for(kind="ended", outcome="promoted")
    bad = register(name, input_example=None)  # without a signature, nobody knows its inputs
    registry.set_registered_model_alias(name, "champion", bad)
    watcher.wait_for(kind="ended", outcome="ModelError")
    told = watcher.wait_for(kind="standing", outcome="refused")
    assert told["message"]
    tags = registry.get_model_version(name, str(bad)).tags
    assert (tags["tritonpipe.state"], bool(tags["tritonpipe.reason"])) == ("refused", True)
    time.sleep(2.0)  # several rounds
    assert len(watcher.told(kind="started")) == 2
    assert_served(servers, name, 1, versions[0], rows)
    registry.set_model_version_tag(name, str(bad), "tritonpipe.retry", "1")
    watcher.end()
    again = watching("--model", name)
    again.wait_for(kind="ended", outcome="ModelError")
    registry.set_registered_model_alias(name, "champion", 2)
    again.wait_for(kind="ended", outcome="promoted")
    assert_served(servers, name, 2, versions[1], rows)


def test_somebodys_rollback_is_not_undone(
    watching: Callable[..., Watcher],
    tritonpipe: Callable[..., Any],
    name: str,
    versions: list[Any],
    registry: MlflowClient,
    servers: Servers,
    rows: Any,
) -> None:
    watcher = watching("--model", name)
    for version in (1, 2):
        registry.set_registered_model_alias(name, "champion", version)
        watcher.wait_for(version, kind="ended", outcome="promoted")
    assert tritonpipe("rollback", name).code == 0
    watcher.wait_for(kind="standing", outcome="held")
    time.sleep(1.5)
    assert_served(servers, name, 1, versions[0], rows)


def test_of_two_watchers_one_acts_and_the_other_takes_over(
    watching: Callable[..., Watcher],
    name: str,
    versions: list[Any],
    registry: MlflowClient,
    servers: Servers,
    rows: Any,
) -> None:
    first = watching("--model", name)
    first.wait_for(kind="leading")
    second = watching("--model", name)
    second.wait_for(kind="waiting")
    registry.set_registered_model_alias(name, "champion", 1)
    first.wait_for(kind="ended", outcome="promoted")
    registry.set_registered_model_alias(name, "champion", 2)
    first.wait_for(2, kind="started")
    first.end(signal.SIGKILL)
    second.wait_for(kind="leading")
    deadline = time.monotonic() + PATIENCE
    while answers(servers, name, rows)[0] != 2:
        assert time.monotonic() < deadline, second.events
        time.sleep(0.1)
    assert_served(servers, name, 2, versions[1], rows)


def test_a_removed_alias_takes_the_model_away_if_that_is_wished(
    watching: Callable[..., Watcher],
    name: str,
    versions: list[Any],
    registry: MlflowClient,
    servers: Servers,
) -> None:
    watcher = watching("--model", name, "--unload", "--unload-after", "0.5")
    registry.set_registered_model_alias(name, "champion", 1)
    watcher.wait_for(kind="ended", outcome="promoted")
    registry.delete_registered_model_alias(name, "champion")
    watcher.wait_for(kind="ended", outcome="retired")
    deadline = time.monotonic() + PATIENCE
    while servers.replicas[0].is_ready(name, 1):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert servers.repository.list_folder(name) == []
    assert registry.get_model_version(name, "1").tags["tritonpipe.state"] == "retired"


def test_a_model_that_is_deleted_under_way_ends_its_work(
    watching: Callable[..., Watcher], name: str, versions: list[Any], registry: MlflowClient
) -> None:
    watcher = watching("--model", name)
    registry.set_registered_model_alias(name, "champion", 1)
    watcher.wait_for(kind="started")
    registry.delete_registered_model(name)
    watcher.wait_for(kind="ended", model=name)
    assert watcher.told(kind="ended", outcome="Bug") == []
    assert watcher.end() == 0


def test_mlflow_may_go_away_for_a_while(
    watching: Callable[..., Watcher],
    name: str,
    versions: list[Any],
    registry: MlflowClient,
    servers: Servers,
    rows: Any,
) -> None:
    with forwarder(os.environ["MLFLOW_TRACKING_URI"]) as (address, is_open):
        watcher = watching("--model", name, MLFLOW_TRACKING_URI=address)
        registry.set_registered_model_alias(name, "champion", 1)
        watcher.wait_for(kind="ended", outcome="promoted")
        is_open.clear()
        watcher.wait_for(kind="round failed")
        registry.set_registered_model_alias(name, "champion", 2)
        assert_served(servers, name, 1, versions[0], rows)
        is_open.set()
        watcher.wait_for(2, kind="ended", outcome="promoted")
        assert_served(servers, name, 2, versions[1], rows)


def test_once_does_what_can_be_done_and_tells_how_things_stand(
    tritonpipe: Callable[..., Any],
    name: str,
    versions: list[Any],
    register: Register,
    registry: MlflowClient,
) -> None:
    registry.set_registered_model_alias(name, "champion", 2)
    done = tritonpipe("watch", "--once", "--json", "--model", f"{name}*")
    assert (done.code, [s["state"] for s in done.data]) == (0, ["serving"])
    other = f"{name}-bad"
    register(other, input_example=None)
    registry.set_registered_model_alias(other, "champion", 1)
    done = tritonpipe("watch", "--once", "--json", "--model", f"{name}*")
    assert done.code == 12
    assert {s["model"]: s["state"] for s in done.data} == {name: "serving", other: "refused"}


def test_a_file_says_which_aliases_are_served_and_after_what(
    watching: Callable[..., Watcher],
    tmp_path: Path,
    name: str,
    versions: list[Any],
    registry: MlflowClient,
    servers: Servers,
    rows: Any,
) -> None:
    file = tmp_path / "tritonpipe.toml"
    file.write_text(
        f'[models."{name}"]\n'
        f'serve = {{ champion = "{name}", challenger = "{name}-challenger" }}\n'
        'requires = { validation_status = "approved" }\n'
        'metrics = { accuracy = ">= 0.5" }\n'
    )
    watcher = watching("--model", name, "--config", str(file))
    registry.set_registered_model_alias(name, "champion", 1)
    registry.set_registered_model_alias(name, "challenger", 2)
    told = watcher.wait_for(kind="standing", model=name, outcome="awaiting approval")
    assert "validation_status" in told["message"]
    for version in "12":
        registry.set_model_version_tag(name, version, "validation_status", "approved")
    watcher.end()  # the tags of a version are looked at every 30 s
    again = watching("--model", name, "--config", str(file))
    again.wait_for(2, kind="ended", outcome="promoted")
    assert_served(servers, name, 1, versions[0], rows)
    assert_served(servers, f"{name}-challenger", 2, versions[1], rows)


class TestNotifications:
    def test_mlflows_own_wakes_the_loop(
        self,
        watching: Callable[..., Watcher],
        tritonpipe: Callable[..., Any],
        tmp_path: Path,
        name: str,
        versions: list[Any],
        registry: MlflowClient,
    ) -> None:
        secret = tmp_path / "secret"
        secret.write_text("between us\n")
        watcher = watching(
            *("--model", name, "--interval", "300"),
            *("--listen", "127.0.0.1:0", "--webhook-secret-file", str(secret)),
        )
        url = f"http://{watcher.address()}/webhook"
        watcher.wait_for(kind="leading")
        assert tritonpipe("webhook", "install", url, "--secret-file", secret).code == 0
        assert not tritonpipe("webhook", "install", url, "--secret-file", secret, "--json").data[
            "is_new"
        ]
        try:
            # MLflow remembers for a moment that nobody wants to be told of an alias.
            deadline = time.monotonic() + PATIENCE
            while not watcher.told(kind="started"):
                assert time.monotonic() < deadline, watcher.events
                registry.set_registered_model_alias(name, "champion", 1)
                time.sleep(1.0)
            watcher.wait_for(kind="ended", outcome="promoted")
        finally:
            assert tritonpipe("webhook", "remove", url).code == 0
        assert tritonpipe("webhook", "list", "--json").data == []

    def test_those_that_are_forged_late_doubled_or_too_long_do_not(
        self, watching: Callable[..., Watcher], tmp_path: Path, name: str
    ) -> None:
        secret = tmp_path / "secret"
        secret.write_text("between us\n")
        watcher = watching(
            *("--model", name, "--interval", "300"),
            *("--listen", "127.0.0.1:0", "--webhook-secret-file", str(secret)),
        )
        address = watcher.address()
        wait_until(lambda: rounds(address) == 1)
        now = int(time.time())
        assert notify(address, "right", now) == 204
        wait_until(lambda: rounds(address) == 2)
        assert notify(address, "right", now) == 204  # again: taken, and nothing done
        assert notify(address, "late", now - 4000) == 401
        assert notify(address, "forged", now, secret="guessed") == 401
        assert notify(address, "long", now, body=b"x" * 70_000) == 413
        assert ask(address, "GET", "/webhook")[0] == 405
        time.sleep(1.0)
        assert rounds(address) == 2
        assert ask(address, "GET", "/healthz")[0] == 200
        assert ask(address, "GET", "/readyz")[0] == 200


def test_an_address_that_is_taken_is_told(tritonpipe: Callable[..., Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = tritonpipe("watch", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (done.code, "--listen" in done.err) == (4, True)


def notify(
    address: str, delivery: str, at: int, *, secret: str = "between us", body: bytes = b"{}"
) -> int:
    headers = {
        DELIVERY: hashlib.sha256(delivery.encode()).hexdigest(),
        TIMESTAMP: str(at),
        "Content-Type": "application/json",
    }
    signed = signature_of(secret.encode(), headers[DELIVERY], headers[TIMESTAMP], body)
    return ask(address, "POST", "/webhook", body, headers | {SIGNATURE: signed})[0]


def ask(
    address: str, method: str, path: str, body: bytes = b"", headers: Any = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def rounds(address: str) -> int:
    text = ask(address, "GET", "/metrics")[1]
    line = next(x for x in text.splitlines() if x.startswith("tritonpipe_watch_rounds_total"))
    return int(float(line.split()[1]))


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def forwarder(target: str) -> Iterator[tuple[str, threading.Event]]:
    """An address that leads to a server as long as it is open, and refuses otherwise."""
    host, port = urlsplit(target).hostname or "", urlsplit(target).port or 0
    is_open = threading.Event()
    is_open.set()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pump(source: socket.socket, sink: socket.socket) -> None:
            with suppress(OSError):
                while is_open.is_set() and (data := source.recv(65536)):
                    sink.sendall(data)
            for end in (source, sink):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            source.close()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _address = listener.accept()
                    if not is_open.is_set():
                        client.close()
                        continue
                    server = socket.create_connection((host, port))
                    for ends in ((client, server), (server, client)):
                        threading.Thread(target=pump, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", is_open
