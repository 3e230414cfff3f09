"""One real stack for all integration tests, on ports of its own, and nothing left of it after."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from sklearn.linear_model import LogisticRegression

from pipeline.flows.servers import Servers, open_servers
from pipeline.settings import Settings, load_settings
from pipeline.stack import Stack
from pipeline.stack.leftovers import shared_memory_prefix
from pipeline.stack.ports import Ports, is_free
from pipeline.stack.processes import family
from pipeline.stack.shell import CONFLICTING, without_proxy
from pipeline.stack.state import StateDirectory

ANY_PORTS = {field.name: 0 for field in fields(Ports)}
HERE = Path(__file__).parent
ROWS = np.array([[0.1, 0.2, 0.3], [1.0, -1.0, 2.0], [5.0, 0.0, -3.0]], dtype=np.float32)


LONGEST = (
    "test_prove.py", "test_pyfunc.py", "test_loop.py", "test_record.py", "test_outages.py",
    "test_many.py", "test_audit.py", "test_mirror.py",
)  # fmt: skip
"""Begun first, so that at the end no processor waits for one of them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack, to which the environment of this process points."""
    # The blank is on purpose: Triton has to work in any folder.
    stack = Stack(tmp_path_factory.mktemp("stack") / "the state")
    with pytest.MonkeyPatch.context() as patch:
        stack.up(ports=ANY_PORTS)
        try:
            for name in CONFLICTING:
                patch.delenv(name, raising=False)
            variables = stack.environment_variables() | without_proxy(os.environ)
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setenv("TRITONPIPE_CACHE", str(tmp_path_factory.mktemp("exports")))
            yield stack
        finally:
            down_without_a_trace(stack)


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def command() -> list[str]:
    return [sys.executable, "-P", "-m", "pipeline"]


@pytest.fixture
def tritonpipe(stack: object, command: list[str]) -> Callable[..., Done]:
    """Run the command line with some variables changed; None removes one."""

    def run(*arguments: object, **changes: str | None) -> Done:
        environment = {k: v for k, v in (os.environ | changes).items() if v is not None}
        done = subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
            timeout=200,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)

    return run


@pytest.fixture
def registry(stack: object) -> MlflowClient:
    return MlflowClient()


@pytest.fixture(scope="session")
def register(stack: object) -> Callable[..., int]:
    """Log a model as a user does and register it; gives the version."""

    def log(name: str, model: Any = None, flavor: str = "sklearn", **options: Any) -> int:
        options.setdefault("name", "model")
        if flavor == "sklearn":
            model = classifier(seed=0) if model is None else model
            options.setdefault("input_example", ROWS)
            options.setdefault("serialization_format", "cloudpickle")
        if flavor != "pyfunc":
            # Otherwise MLflow loads the model in another process to find its packages.
            options.setdefault("pip_requirements", ["mlflow"])
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        with warnings.catch_warnings(), mlflow.start_run():
            warnings.simplefilter("ignore")
            mlflow.log_metric("accuracy", 0.5)
            positional = () if model is None else (model,)
            info = getattr(mlflow, flavor).log_model(
                *positional, registered_model_name=name, **options
            )
        return int(info.registered_model_version)

    return log


def classifier(seed: int) -> LogisticRegression:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    return LogisticRegression().fit(x, (x @ rng.normal(size=3) > 0).astype(np.int64))


@pytest.fixture(scope="session")
def new_classifier() -> Callable[[int], LogisticRegression]:
    return classifier


@pytest.fixture(scope="session")
def rows() -> np.ndarray[Any, Any]:
    return ROWS


@pytest.fixture
def settings(stack: object) -> Settings:
    return load_settings()


@pytest.fixture
def servers(settings: Settings) -> Iterator[Servers]:
    with open_servers(settings) as opened:
        yield opened


@pytest.fixture
def remove_models(servers: Servers) -> Callable[[str], None]:
    """Take away all models whose names begin alike, when no load of them runs.

    Every entry makes each of Triton's polls longer, and the other tests with it.
    """

    def remove(prefix: str) -> None:
        keys = [o.key for o in servers.repository.list_folder("") if o.key.startswith(prefix)]
        servers.repository.delete([key for key in keys if key.endswith("/config.pbtxt")])
        while any(
            state.state == "LOADING"
            for model, versions in servers.replicas[0].all_versions().items()
            for state in versions.values()
            if model.startswith(prefix)
        ):
            time.sleep(0.2)
        servers.repository.delete(keys)

    return remove


@pytest.fixture
def name(remove_models: Callable[[str], None]) -> Iterator[str]:
    """A name that no other test uses; what is published under it goes away with the test."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    yield name
    remove_models(name)


@pytest.fixture
def take_down() -> Callable[[Stack], None]:
    """Take a stack down and check that nothing of it is left but its data."""
    return down_without_a_trace


def down_without_a_trace(stack: Stack) -> None:
    """Take a stack down and check that no process, port or shared memory is left."""
    state = StateDirectory(stack.state_directory)
    ports = state.options().ports
    identities = [part.identity() for part in stack.parts()]
    stack.down()
    assert [family(identity) for identity in identities if identity] == [()] * len(identities)
    assert all(is_free(getattr(ports, field.name)) for field in fields(Ports))
    assert list(Path("/dev/shm").glob(f"{shared_memory_prefix(state)}*")) == []
