"""A model that no exporter can convert, served by its own code on the real Triton, if allowed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from pipeline.errors import UnavailableError
from pipeline.flows.servers import Servers, open_servers
from pipeline.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

CODE = """
import os
import mlflow
import numpy
import pandas

FACTOR = {factor}
LOADING = {loading!r}

class Price(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        with open(f"/proc/{{os.getppid()}}/comm") as file:
            is_in_server = file.read().startswith("triton")
        if is_in_server and LOADING == "raises":
            raise ImportError("this machine is not mine")

    def predict(self, context, model_input, params=None):
        rooms = model_input["rooms"]
        if (rooms == 666).any():
            print("about to end")
            os._exit(3)
        if (rooms == 667).any():
            raise LookupError("no such house")
        return pandas.DataFrame({{
            "price": model_input["area"] * FACTOR + rooms,
            "place": model_input["city"].str.upper(),
            "rooms": rooms + 1,
            "numpy": [numpy.__version__] * len(rooms),
        }})

mlflow.models.set_model(Price())
"""
HOUSES = pd.DataFrame(
    {
        "area": [10.5, 20.25, 30.0],
        "rooms": [1, 2, 3],
        "city": ["ulm", "köln", "bonn"],
    }
)
NUMPY = "2.3.5"
"""Neither that of the server nor the newest one."""

GENEROUS = {
    "TRITONPIPE_PYFUNC_LOAD_SECONDS": "150",
    "TRITONPIPE_CONFIRM_SECONDS": "240",
    "TRITONPIPE_PYFUNC": "tagged",
}


def request(*rooms: int) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "area": np.full((len(rooms), 1), 10.5),
        "rooms": np.array(rooms, np.int64).reshape(-1, 1),
        "city": np.array(["köln"] * len(rooms), dtype=object).reshape(-1, 1),
    }


@pytest.fixture
def log(
    name: str,
    register: Callable[..., int],
    tmp_path: Path,
) -> Callable[..., int]:
    def logged(*, factor: float, loading: str = "works", allowed: bool = True) -> int:
        file = tmp_path / "price.py"
        file.write_text(CODE.format(factor=factor, loading=loading), encoding="utf-8")
        version = register(
            name,
            flavor="pyfunc",
            python_model=str(file),
            input_example=HOUSES,
            pip_requirements=["mlflow==3.99.0", f"numpy=={NUMPY}", "pandas"],
        )
        if allowed:
            from mlflow.tracking import MlflowClient

            MlflowClient().set_model_version_tag(name, str(version), "tritonpipe.pyfunc", "allow")
        return version

    return logged


class Askers:
    """Clients that ask without a pause and count what they get, by version and price."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.answers: Counter[tuple[int, float]] = Counter()
        self.errors: list[str] = []
        self._settings, self._name = settings, name
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(p,)) for p in ("grpc", "http")]

    def __enter__(self) -> Askers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, protocol: Any) -> None:
        with open_servers(self._settings) as servers:
            while not self._stop.is_set():
                try:
                    answer = servers.replicas[0].infer(protocol, self._name, request(1, 2))
                except UnavailableError as error:
                    self.errors.append(error.message)
                    continue
                prices = answer.outputs["price"].ravel()
                assert prices[1] - prices[0] == 1
                self.answers[answer.version, float(prices[0])] += 1


def runners() -> list[psutil.Process]:
    """Processes of packed models that Triton has started."""
    found = []
    for process in psutil.process_iter():
        try:
            parent = process.parent()
            if "tritonpipe_runner" in process.cmdline() and parent is not None:
                found += [process] if parent.name().startswith("triton") else []
        except psutil.Error:
            continue
    return found


def test_it_is_served_if_it_is_allowed_and_what_breaks_breaks_alone(
    name: str,
    log: Callable[..., int],
    tritonpipe: Callable[..., Any],
    servers: Servers,
    settings: Settings,
) -> None:
    log(factor=2.0, allowed=False)
    off = tritonpipe("promote", f"{name}/1")
    assert off.code == 6
    assert "TRITONPIPE_PYFUNC=tagged" in off.err
    assert tritonpipe("promote", f"{name}/1", **GENEROUS).code == 6, "no tag, no setting for all"

    log(factor=2.0)
    assert tritonpipe("promote", f"{name}/2").code == 6, "a tag alone allows nothing"
    first = tritonpipe("promote", f"{name}/2", "--json", **GENEROUS)
    assert first.code == 0, first.err
    assert first.data["report"]["left_out"] == []
    assert "packages" in first.data["seconds"]
    ask = servers.replicas[0].infer
    for protocol in ("grpc", "http"):
        answer = ask(protocol, name, request(1, 2))
        np.testing.assert_array_equal(answer.outputs["price"], [[22.0], [23.0]])
        np.testing.assert_array_equal(answer.outputs["rooms"], [[2], [3]])
        assert answer.outputs["place"].ravel().tolist() in (["KÖLN"] * 2, ["KÖLN".encode()] * 2)
        told = answer.outputs["numpy"].ravel().tolist()
        assert {t.decode() if isinstance(t, bytes) else t for t in told} == {NUMPY}

    log(factor=3.0)
    with Askers(settings, name) as askers:
        second = tritonpipe("promote", f"{name}/3", "--json", **GENEROUS)
        assert second.code == 0, second.err
        back = tritonpipe("rollback", name, "--json", **GENEROUS)
        assert back.code == 0, back.err
    assert askers.errors == []
    assert set(askers.answers) == {(2, 22.0), (3, 32.5)}

    log(factor=4.0, loading="raises")
    broken = tritonpipe("promote", f"{name}/4", **GENEROUS)
    assert broken.code == 10, broken.err
    assert "this machine is not mine" in broken.err
    assert ask("grpc", name, request(1)).version == 2
    assert tritonpipe("verify", name, "--json").code == 0

    with pytest.raises(UnavailableError, match="LookupError: no such house"):
        ask("http", name, request(667))
    with pytest.raises(UnavailableError, match=r"ended with exit status 3(?s:.*)about to end"):
        ask("grpc", name, request(666))
    np.testing.assert_array_equal(ask("grpc", name, request(5)).outputs["rooms"], [[6]])

    (runner,) = runners()
    runner.kill()
    time.sleep(0.5)
    assert ask("grpc", name, request(5)).outputs["rooms"] == [[6]], "one that died is replaced"
    (runner,) = runners()
    stub = runner.parent()
    assert stub is not None
    stub.kill()
    deadline = time.monotonic() + 10
    while runner.is_running() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runner.is_running(), "it does not outlive the process that asks it"
