"""History, garbage collection and check on real servers, with a client that asks all the time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from pipeline.errors import RequestError, TritonpipeError, UnavailableError
from pipeline.flows.servers import Servers
from pipeline.stores import Store

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


class Client:
    """Asks all the time; every answer must be right for the version that gave it."""

    def __init__(self, servers: Servers, model: str) -> None:
        self._triton = servers.replicas[0]
        self._model = model
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.answers = 0
        self.failures: list[str] = []
        self.versions: set[int] = set()

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stop.wait(0.01):
            try:
                answer = self._triton.infer("grpc", self._model, {"x": ROWS})
            except TritonpipeError as error:
                self.failures.append(error.message)
                continue
            self.answers += 1
            self.versions.add(answer.version)
            if not np.array_equal(answer.outputs["y"], ROWS * answer.version):
                self.failures.append(f"version {answer.version} answered wrongly")


@pytest.fixture
def asked(servers: Servers, name: str) -> Callable[[], Client]:
    return lambda: Client(servers, name)


@pytest.fixture
def registry(name: str) -> MlflowClient:
    """A registry in which ``name`` has four versions."""
    client = MlflowClient()
    client.create_registered_model(name)
    for _ in range(4):
        client.create_model_version(name, source="s3://models/elsewhere")
    return client


def test_a_life_with_history_collection_and_return(
    name: str,
    publish: Callable[..., None],
    asked: Callable[[], Client],
    tritonpipe: Callable[..., Any],
    registry: MlflowClient,
    store: Store,
) -> None:
    registry.set_registered_model_alias(name, "challenger", "1")
    publish(1)
    with asked() as client:
        publish(2, 3, 4)
        plan = tritonpipe("gc", name, "--keep", "1", "--dry-run", "--json").data
        assert [g["version"] for g in plan[0]["garbage"]] == [2]
        assert plan[0]["kept"]["1"] == [f"wished by {name}@challenger"]
        assert "a rollback would return to it" in plan[0]["kept"]["3"]
        registry.delete_registered_model_alias(name, "challenger")
        done = tritonpipe("gc", name, "--keep", "1", "--json")
        assert done.code == 0
        assert [g["version"] for g in done.data[0]["garbage"]] == [1, 2]
        assert {o.key.split("/")[1] for o in store.list_folder(name)} == {
            "3", "4", "config.pbtxt", "warmup",
        }  # fmt: skip
        assert tritonpipe("gc", name, "--keep", "1", "--json").data[0]["garbage"] == []
        refused = tritonpipe("rollback", name, "--to", "2")
        assert isinstance(refused.error, RequestError)
        assert "its files were collected as garbage; kept are 3, 4" in refused.error.message
        assert tritonpipe("rollback", name).error is None
        publish(2)
        assert tritonpipe("fsck", name, "--deep", "--json").data["findings"] == []
    assert client.failures == []
    assert client.answers > 50
    assert client.versions == {1, 2, 3, 4}
    told = tritonpipe("history", name, "--json").data
    assert told["committed"] == 2
    assert [f"{a['action']} {a['version']} {a['outcome']}" for a in told["attempts"]] == [
        "promote 2 confirmed", "rollback 3 confirmed", "gc 2 collected", "gc 1 collected",
        "promote 4 confirmed", "promote 3 confirmed", "promote 2 confirmed", "promote 1 confirmed",
    ]  # fmt: skip
    assert all(a["digest"].startswith("sha256:") for a in told["attempts"])
    assert sum(a["served_seconds"] is not None for a in told["attempts"]) == 6


def test_damage_is_found_and_repaired_while_clients_are_answered(
    name: str,
    publish: Callable[..., None],
    asked: Callable[[], Client],
    tritonpipe: Callable[..., Any],
    store: Store,
) -> None:
    publish(1, 2)
    before = contents(store, name)
    with asked() as client:
        store.delete([f"{name}/config.pbtxt", f"{name}/1/manifest.json"])
        store.put(f"{name}/2/manifest.json", b"{}")
        store.put(f"{name}/7/half", b"of a version")
        found = tritonpipe("fsck", name, "--json")
        assert found.code == 12
        assert {f["code"] for f in found.data["findings"]} == {
            "config-missing", "manifest-missing", "manifest-altered", "leftover",
        }  # fmt: skip
        done = tritonpipe("fsck", name, "--repair", "--json")
        assert (done.code, done.data["findings"]) == (0, [])
        assert len(done.data["repairs"]) == 4
        assert contents(store, name) == before
        again = tritonpipe("fsck", name, "--repair", "--deep", "--json")
        assert (again.code, again.data["repairs"]) == (0, [])
    assert client.failures == []
    assert client.answers > 10
    store.put(f"{name}/1/model.onnx", b"x" * len(before[f"{name}/1/model.onnx"] or b""))
    assert tritonpipe("fsck", name).code == 0
    deep = tritonpipe("fsck", name, "--deep", "--repair", "--json")
    assert (deep.code, [f["code"] for f in deep.data["findings"]]) == (12, ["object-altered"])


def contents(store: Store, name: str) -> dict[str, bytes | None]:
    return {o.key: store.get(o.key) for o in store.list_folder(name)}


def test_without_mlflow_and_triton_history_is_told_and_nothing_is_collected(
    name: str,
    publish: Callable[..., None],
    tritonpipe: Callable[..., Any],
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(1, 2, 3)
    before = contents(store, name)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        assert isinstance(tritonpipe("gc", name, "--keep", "1").error, UnavailableError)
    monkeypatch.setenv("TRITONPIPE_TRITON_HTTP", "127.0.0.1:9")
    assert isinstance(tritonpipe("gc", name, "--keep", "1").error, UnavailableError)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert len(tritonpipe("history", name, "--json").data["attempts"]) == 3
    assert contents(store, name) == before
    report = tritonpipe("fsck", name, "--json")
    assert [f["code"] for f in report.data["findings"]] == ["server-silent"]
