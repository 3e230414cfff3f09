"""Watchers that run beside the tests, and a registered model whose alias they follow."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from pipeline.flows.servers import Servers

PATIENCE = 120.0


def wait_until(is_so: Callable[[], bool], *told: object) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < deadline, told
        time.sleep(0.05)


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
        self._was_killed = False
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
        self._was_killed |= number == signal.SIGKILL
        if not self._was_killed:  # then its work may end in the midst of anything
            assert not [w for w in self.words if "Traceback" in w], self.words
        return code


@pytest.fixture
def watching(command: list[str]) -> Iterator[Callable[..., Watcher]]:
    """Starts watchers, and stops those that still run."""
    with ExitStack() as stack:  # one that ends badly leaves no other one running

        def start(*arguments: str, **changes: str) -> Watcher:
            watcher = Watcher(command, ("--interval", "0.3", *arguments), **changes)
            stack.callback(ended_well, watcher)
            return watcher

        yield start


def ended_well(watcher: Watcher) -> None:
    assert watcher.end() in {0, -signal.SIGKILL}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A registered model with two versions, and what clients get of it."""

    name: str
    models: list[Any]
    registry: MlflowClient
    servers: Servers
    rows: Any

    def wish(self, version: int, alias: str = "champion") -> None:
        self.registry.set_registered_model_alias(self.name, alias, version)

    def tags(self, version: int) -> dict[str, str]:
        return dict(self.registry.get_model_version(self.name, str(version)).tags)

    def served(self, name: str = "") -> int:
        """The version that answers."""
        return self.servers.replicas[0].infer("grpc", name or self.name, {"X": self.rows}).version

    def assert_served(self, version: int, name: str = "") -> None:
        """It answers as its model does."""
        answer = self.servers.replicas[0].infer("grpc", name or self.name, {"X": self.rows})
        assert answer.version == version
        expected = self.models[version - 1].predict_proba(self.rows)
        np.testing.assert_allclose(answer.outputs["probabilities"], expected, 1e-3, 1e-5)


@pytest.fixture
def scene(
    name: str,
    register: Callable[..., int],
    new_classifier: Callable[[int], Any],
    registry: MlflowClient,
    servers: Servers,
    rows: Any,
) -> Scene:
    models = [new_classifier(1), new_classifier(2)]
    assert [register(name, model) for model in models] == [1, 2]
    return Scene(name=name, models=models, registry=registry, servers=servers, rows=rows)


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait until something is so."""
    return wait_until


@pytest.fixture
def forwarded() -> Callable[[str], AbstractContextManager[tuple[str, threading.Event]]]:
    """An address that leads to a server as long as it is open, and refuses otherwise."""
    return forwarder


@contextmanager
def forwarder(target: str) -> Iterator[tuple[str, threading.Event]]:
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
