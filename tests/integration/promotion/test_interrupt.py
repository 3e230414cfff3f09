"""Ctrl-C at every stage: nothing served changes, no process stays, the next run works."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from pipeline.flows.servers import Servers

pytestmark = pytest.mark.integration

STAGES = ["resolve", "fetch", "export", "check", "configure", "publish", "commit"]


@pytest.fixture(autouse=True)
def _what_is_served_stays_served(served: Any) -> Iterator[None]:
    yield
    served.assert_still_served()


@pytest.fixture(scope="module")
def interrupted_model(
    register: Callable[..., int], new_classifier: Callable[[int], Any], command: list[str]
) -> str:
    """A served model that gets one more version in each test."""
    name = "often-interrupted"
    version = register(name, new_classifier(1))
    subprocess.run([*command, "promote", f"{name}/{version}"], check=True, capture_output=True)
    return name


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_after_a_stage(
    stage: str,
    interrupted_model: str,
    register: Callable[..., int],
    new_classifier: Callable[[int], Any],
    tritonpipe: Callable[..., Any],
    servers: Servers,
    command: list[str],
    rows: Any,
) -> None:
    name = interrupted_model
    version = register(name, new_classifier(STAGES.index(stage) + 2))
    process = subprocess.Popen(
        [*command, "promote", f"{name}/{version}"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if f"✓ {stage}" in line:
            break
    else:
        pytest.fail(f"stage {stage} was never shown")
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 130, rest
    assert "Traceback" not in rest
    assert "interrupted" in rest
    assert orphaned_workers() == []
    deadline = time.monotonic() + 20
    while servers.triton.infer("grpc", name, {"X": rows}).version != version - 1:
        assert time.monotonic() < deadline, "the interrupted version is served"
        time.sleep(0.1)
    assert tritonpipe("promote", f"{name}/{version}").code == 0
    assert servers.triton.infer("grpc", name, {"X": rows}).version == version


def orphaned_workers() -> list[int]:
    """Export processes whose parent is gone."""
    processes = psutil.process_iter(["pid", "ppid", "cmdline"])
    return [
        p.info["pid"]
        for p in processes
        if p.info["ppid"] == 1 and "pipeline.flows.worker_main" in (p.info["cmdline"] or [])
    ]
