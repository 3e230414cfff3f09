"""Ctrl-C at every stage: nothing served changes, no process stays, the next run works."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from pipeline.artifacts import PromotionRequest
from pipeline.flows.promote import promote
from pipeline.flows.rollback import plan_rollback
from pipeline.flows.servers import Servers
from pipeline.settings import Settings

pytestmark = pytest.mark.integration

STAGES = ["resolve", "fetch", "export", "check", "configure", "publish", "commit", "load"]
AFTER_PROOF = ["confirm", "record"]
"""What comes later can no longer be interrupted away: the version has proven itself."""


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


@pytest.mark.parametrize("stage", [*STAGES, *AFTER_PROOF])
def test_interrupted_after_a_stage(
    stage: str,
    interrupted_model: str,
    register: Callable[..., int],
    new_classifier: Callable[[int], Any],
    settings: Settings,
    servers: Servers,
    command: list[str],
    rows: Any,
) -> None:
    name = interrupted_model
    version = register(name, new_classifier(len(stage)))
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
    code = process.wait(timeout=60)
    assert "Traceback" not in rest
    assert orphaned_workers() == []
    if stage in AFTER_PROOF:
        assert code in {0, 130}, rest
    else:
        assert code == 130, rest
        assert "interrupted" in rest
    expected = version if stage in AFTER_PROOF else version - 1
    deadline = time.monotonic() + 20
    while servers.replicas[0].infer("grpc", name, {"X": rows}).version != expected:
        assert time.monotonic() < deadline, "the interrupted version is served"
        time.sleep(0.1)
    promote(PromotionRequest(model=name, version=version), settings)
    assert servers.replicas[0].infer("grpc", name, {"X": rows}).version == version


def orphaned_workers() -> list[int]:
    """Export processes whose parent is gone."""
    processes = psutil.process_iter(["pid", "ppid", "cmdline"])
    return [
        p.info["pid"]
        for p in processes
        if p.info["ppid"] == 1 and "pipeline.flows.worker_main" in (p.info["cmdline"] or [])
    ]


def test_killed_after_the_commit_the_next_run_confirms_and_the_one_before_is_not_forgotten(
    name: str,
    register: Callable[..., int],
    new_classifier: Callable[[int], Any],
    settings: Settings,
    servers: Servers,
    command: list[str],
) -> None:
    for version in (1, 2, 3):
        assert register(name, new_classifier(version)) == version
    promote(PromotionRequest(model=name, version=1), settings)
    process = subprocess.Popen(
        [*command, "promote", f"{name}/2"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert any("✓ commit" in line for line in process.stderr)
    process.kill()
    process.stderr.close()
    process.wait()
    assert servers.journal.entries(name)[-1].event == "committing"
    again = promote(PromotionRequest(model=name, version=2), settings)
    assert "export" not in again.seconds
    assert (again.outcome, again.previous) == ("promoted", 1)
    promote(PromotionRequest(model=name, version=3), settings)
    assert plan_rollback(name, settings).version == 2
