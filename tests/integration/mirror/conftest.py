"""A stack whose Triton reads a mirror, with a proxy between the mirror and S3."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.demo.traffic import Traffic
from pipeline.manifest import MANIFEST_NAME
from pipeline.stack import Mirroring, Stack
from pipeline.stack.mirror import launch_mirror
from pipeline.stack.part import Launch, Part, http_status
from pipeline.stack.ports import Ports
from pipeline.stack.shell import CONFLICTING, without_proxy
from pipeline.stack.state import StateDirectory
from pipeline.stores import Store, open_store
from pipeline.testing.prove.entries import Flaw, Recipe, golden_answers, make_candidate
from pipeline.testing.s3_faults import Answer, Fault, Request
from pipeline.testing.s3_proxy import S3Proxy
from pipeline.triton import TritonClient

_CONTENTS = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)


class FaultyS3:
    """What the mirror reaches in the place of S3."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.is_empty = False
        self.proxy: S3Proxy | None = None

    def choose(self, _request: Request) -> Fault | None:
        return self.fault

    def begin(self, port: int) -> str:
        if self.proxy is None:
            self.proxy = _Emptying(port, self.choose, self)
            self.proxy.__enter__()
        return self.proxy.url

    def requests(self) -> list[Request]:
        assert self.proxy is not None
        return [seen.request for seen in self.proxy.seen]

    @contextmanager
    def broken(self, fault: Fault | None = None, *, is_empty: bool = False) -> Iterator[None]:
        self.fault, self.is_empty = fault, is_empty
        try:
            yield
        finally:
            self.fault, self.is_empty = None, False


class _Emptying(S3Proxy):
    def __init__(self, port: int, choose: Any, faulty: FaultyS3) -> None:
        super().__init__(port, choose)
        self._faulty = faulty

    def answer(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> Answer | None:
        answer = super().answer(method, target, headers, body)
        if answer is None or not self._faulty.is_empty or "list-type" not in target:
            return answer
        empty = re.sub(rb"<KeyCount>\d+", b"<KeyCount>0", _CONTENTS.sub(b"", answer.body))
        return replace(answer, body=empty)


class Mirrored:
    """The stack, and a publisher that needs no registry."""

    def __init__(self, stack: Stack, faulty: FaultyS3, work: Path) -> None:
        self.stack = stack
        self.faulty = faulty
        self._work = work
        self.store: Store = open_store("s3://models/repository")
        where = stack.addresses()
        self.http = where.triton_http.removeprefix("http://")
        self.grpc = where.triton_grpc
        self.triton = TritonClient(http=self.http, grpc=self.grpc)

    def upload(self, model: str, version: int, flaw: Flaw | None = None) -> str:
        """All but the commit; gives the config."""
        folder = self._work / f"{model}-{version}-{time.monotonic_ns()}"
        folder.mkdir()
        entry = make_candidate(Recipe(model=model, version=version, flaw=flaw), folder).entry
        assert entry is not None
        for file in entry.manifest.files:
            self.store.put(f"{model}/{version}/{file.path}", entry.folder / file.path)
        self.store.create(f"{model}/warmup/README", b"x")
        self.store.put(f"{model}/{version}/{MANIFEST_NAME}", entry.manifest.to_bytes())
        return entry.config

    def commit(self, model: str, config: str) -> None:
        time.sleep(1.1)
        self.store.put(f"{model}/config.pbtxt", config.encode())

    def publish(self, model: str, version: int, flaw: Flaw | None = None) -> str:
        config = self.upload(model, version, flaw)
        self.commit(model, config)
        return config

    def wait_served(self, model: str, version: int, seconds: float = 30) -> float:
        return wait(lambda: self.triton.is_ready(model, version), seconds)

    def metrics(self) -> dict[str, float]:
        port = StateDirectory(self.stack.state_directory).options().ports.mirror_metrics
        text = http_status(port, "/metrics")[1].decode()
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        return {n: float(v) for n, v in (line.rsplit(" ", 1) for line in lines)}

    def clients(self, model: str, *versions: int) -> Traffic:
        """Clients that expect the answers of these versions while the body runs."""
        golden = {version: golden_answers(version) for version in versions}
        return Traffic(
            model,
            golden[versions[0]].inputs,
            {version: samples.outputs for version, samples in golden.items()},
            http=self.http,
            grpc=self.grpc,
        )

    def part(self, name: str) -> Part:
        [found] = [part for part in self.stack.parts() if part.name == name]
        return found

    def start_mirror(self) -> None:
        """Start it without waiting for it to have listed the store, which may be broken."""
        state = StateDirectory(self.stack.state_directory)
        options = state.options()
        self.part("mirror").start(
            launch_through(self.faulty)(state, options.ports, 1, options.mirroring)
        )


def launch_through(faulty: FaultyS3) -> Callable[..., Launch]:
    def through_the_proxy(
        state: StateDirectory, ports: Ports, poll_seconds: int, mirroring: Mirroring
    ) -> Launch:
        launch = launch_mirror(state, ports, poll_seconds, mirroring)
        endpoint = {"AWS_ENDPOINT_URL": faulty.begin(ports.s3)}
        return replace(launch, environment={**launch.environment, **endpoint})

    return through_the_proxy


def wait(condition: Callable[[], bool], seconds: float = 30) -> float:
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, "waited in vain"
        time.sleep(0.05)
    return time.monotonic() - started


@pytest.fixture
def wait_until() -> Callable[..., float]:
    return wait


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mirrored]:
    stack = Stack(tmp_path_factory.mktemp("mirrored") / "the state")
    faulty = FaultyS3()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.stack.stack.launch_mirror", launch_through(faulty))
        stack.up(ports={f.name: 0 for f in fields(Ports)}, mirroring=Mirroring.POLL)
        try:
            for name in CONFLICTING:
                patch.delenv(name, raising=False)
            for name, value in (stack.environment_variables() | without_proxy(os.environ)).items():
                patch.setenv(name, value)
            found = Mirrored(stack, faulty, tmp_path_factory.mktemp("entries"))
            with found.triton:
                yield found
        finally:
            stack.down()
            if faulty.proxy is not None:
                faulty.proxy.__exit__(None, None, None)
