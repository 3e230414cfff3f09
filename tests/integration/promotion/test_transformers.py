"""Texts to labels on real servers: one release of three Triton models, asked as one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from pipeline.errors import UnavailableError
from pipeline.flows.servers import Servers, open_servers
from pipeline.settings import Settings
from pipeline.testing.tiny_pipelines import TEXTS, tiny_example, tiny_pipeline, tiny_tokenizer
from pipeline.triton import PROTOCOLS

pytestmark = pytest.mark.integration

TASK = "text-classification"
ASKED = (*TEXTS, "", "Grüße 你好 never-seen-before")
Register = Callable[..., int]
Command = Callable[..., Any]


@pytest.fixture
def letters(name: str, register: Register) -> tuple[str, list[Any]]:
    """A registered model with two versions, and their pipelines."""
    pipelines = [tiny_pipeline(TASK, seed=seed) for seed in (0, 3)]
    for pipe in pipelines:
        register(name, pipe, "transformers", task=TASK, input_example=tiny_example(TASK))
    return name, pipelines


def texts(*asked: str) -> Any:
    return np.array(asked, dtype=object).reshape(-1, 1)


class Clients:
    """Ask without a pause over both protocols; every answer is compared with its pipeline's."""

    def __init__(self, settings: Settings, name: str, pipelines: list[Any]) -> None:
        self._settings, self._name = settings, name
        self._expected = [[pipe(text)[0] for text in ASKED] for pipe in pipelines]
        self.answers: Counter[int] = Counter()
        self.problems: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(p,)) for p in PROTOCOLS]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def ask(self, servers: Servers, protocol: Any) -> int:
        """The version that has answered, rightly."""
        answer = servers.replicas[0].infer(protocol, self._name, {"text": texts(*ASKED)})
        said = self._expected[answer.version - 1]
        labels = [
            item.decode() if isinstance(item, bytes) else item
            for item in answer.outputs["label"].ravel()
        ]
        assert labels == [one["label"] for one in said]
        scores = [one["score"] for one in said]
        np.testing.assert_allclose(answer.outputs["score"].ravel(), scores, 1e-3, 1e-5)
        np.testing.assert_allclose(answer.outputs["scores"].max(axis=1), scores, 1e-3, 1e-5)
        return int(answer.version)

    def _ask(self, protocol: Any) -> None:
        with open_servers(self._settings) as servers:  # a connection belongs to its thread
            while not self._stop.wait(0.05):
                try:
                    self.answers[self.ask(servers, protocol)] += 1
                except Exception as error:  # noqa: BLE001  each is a failure of the test
                    self.problems.append(f"{protocol}: {error}")


def test_texts_are_answered_through_an_exchange_and_back(
    letters: tuple[str, list[Any]],
    settings: Settings,
    servers: Servers,
    registry: MlflowClient,
    tritonpipe: Command,
) -> None:
    name, pipelines = letters
    assert tritonpipe("promote", f"{name}/1").code == 0
    with Clients(settings, name, pipelines) as clients:
        done = tritonpipe("promote", f"{name}/2", "--json")
        assert (done.code, done.data["outcome"], done.data["previous"]) == (0, "promoted", 1)
        assert clients.ask(servers, "grpc") == clients.ask(servers, "http") == 2
        back = tritonpipe("rollback", name, "--json")
        assert back.code == 0
        assert back.data["plan"]["together"] == [
            f"{name}/1",
            f"{name}.network/1",
            f"{name}.tokenizer/1",
        ]
        assert clients.ask(servers, "grpc") == clients.ask(servers, "http") == 1
    assert clients.problems == []
    assert set(clients.answers) == {1, 2}
    for protocol in PROTOCOLS:
        with pytest.raises(UnavailableError, match=r"has \d+ tokens, the model takes at most 32"):
            servers.replicas[0].infer(protocol, name, {"text": texts("cat " * 40)})

    rows = {row["model"]: row for row in tritonpipe("status", name, "--json").data["models"]}
    assert {m: (r["published"], r["served"], r["part_of"]) for m, r in rows.items()} == {
        name: (1, 1, ""),
        f"{name}.network": (1, 1, name),
        f"{name}.tokenizer": (1, 1, name),
    }
    tags = {v: registry.get_model_version(name, str(v)).tags for v in (1, 2)}
    assert [tags[v]["tritonpipe.state"] for v in (1, 2)] == ["serving", "superseded"]
    for model in rows:
        assert tritonpipe("verify", model).code == 0
        assert tritonpipe("fsck", model).code == 0
    kept = tritonpipe("gc", *rows, "--keep", "2", "--dry-run", "--json").data
    assert {g["model"]: sorted(map(int, g["kept"])) for g in kept} == {m: [1, 2] for m in rows}

    writes = {o.key: o.last_modified for o in servers.repository.list_folder(name)}
    again = tritonpipe("promote", f"{name}/1", "--json")
    assert (again.code, again.data["outcome"]) == (0, "unchanged")
    assert {o.key: o.last_modified for o in servers.repository.list_folder(name)} == writes


def test_a_tokenizer_that_does_not_fit_its_network_is_refused(
    name: str, register: Register, tritonpipe: Command, servers: Servers
) -> None:
    small = tiny_pipeline(TASK, tokenizer=tiny_tokenizer(texts=["a b c"]))
    small.tokenizer = tiny_tokenizer()
    register(name, small, "transformers", task=TASK, input_example=["a b"], signature=None)
    done = tritonpipe("promote", f"{name}/1")
    assert done.code == 6
    assert "does not fit its network" in done.err
    assert not list(servers.repository.list_folder(name))
