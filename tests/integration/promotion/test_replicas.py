"""Two Tritons that poll one repository: a release is proven on both or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifacts import PromotionRequest
from pipeline.errors import ConfirmationError, UnavailableError
from pipeline.flows.progress import silent
from pipeline.flows.promote import promote
from pipeline.settings import Settings
from pipeline.stack import Stack
from pipeline.stack.environment import ensure_server_environment
from pipeline.stack.part import Part
from pipeline.stack.ports import free_ports
from pipeline.stack.state import StateDirectory
from pipeline.stack.triton_server import launch_triton
from pipeline.watch.status import status
from pipeline.watch.wishes import Rule

pytestmark = pytest.mark.integration


@contextmanager
def another_triton(stack: Stack, folder: Path, poll_seconds: int) -> Iterator[tuple[str, str]]:
    """Another Triton on the same S3; gives its HTTP and gRPC address."""
    state = StateDirectory(folder / "state")
    state.create()
    first = StateDirectory(stack.state_directory)
    shutil.copytree(first.path / "secrets", state.path / "secrets")
    free = free_ports()
    ports = replace(
        first.options().ports,
        triton_http=next(free),
        triton_grpc=next(free),
        triton_metrics=next(free),
    )
    part = Part(state, "triton", "second Triton", stop_patience=15)
    launch = launch_triton(state, ensure_server_environment(silent), ports, poll_seconds)
    part.start(launch)
    try:
        part.wait_until_ready(launch)
        yield f"127.0.0.1:{ports.triton_http}", f"127.0.0.1:{ports.triton_grpc}"
    finally:
        part.stop()


def with_another(settings: Settings, http: str, grpc: str, seconds: float) -> Settings:
    return settings.model_copy(
        update={
            "triton_http": f"{settings.triton_http},{http}",
            "triton_grpc": f"{settings.triton_grpc},{grpc}",
            "confirm_seconds": seconds,
        }
    )


def test_every_server_gives_the_golden_answers(
    stack: Stack, settings: Settings, register: Callable[..., int], name: str, tmp_path: Path
) -> None:
    version = register(name)
    with another_triton(stack, tmp_path, poll_seconds=1) as (http, grpc):
        both = with_another(settings, http, grpc, 60.0)
        result = promote(PromotionRequest(model=name, version=version), both)
    subjects = {c.subject for c in result.confirmation.comparisons}
    assert subjects == {
        f"triton {protocol} at {address}"
        for protocol in ("grpc", "http")
        for address in both.triton_http.split(",")
    }


def test_a_server_that_does_not_follow_takes_the_release_back(
    stack: Stack,
    settings: Settings,
    register: Callable[..., int],
    new_classifier: Callable[[int], Any],
    name: str,
    tmp_path: Path,
) -> None:
    promote(PromotionRequest(model=name, version=register(name)), settings)
    version = register(name, new_classifier(5))
    # It loads what is committed when it starts, and does not look again.
    with another_triton(stack, tmp_path, poll_seconds=3600) as (http, grpc):
        both = with_another(settings, http, grpc, 6.0)
        with pytest.raises(ConfirmationError, match=http):
            promote(PromotionRequest(model=name, version=version), both)
        rules = [Rule(serve={"champion": "{model}"}, settings=both)]
        row = status(both, rules, model=name).models[0]
    assert (row.published, row.served) == (1, 1)
    assert "differ" not in row.state


def test_nothing_begins_without_all_of_them(
    settings: Settings, register: Callable[..., int], name: str
) -> None:
    gone = next(free_ports())
    settings = settings.model_copy(
        update={
            "triton_http": f"{settings.triton_http},127.0.0.1:{gone}",
            "triton_grpc": f"{settings.triton_grpc},127.0.0.1:{gone}",
        }
    )
    with pytest.raises(UnavailableError, match=f"127.0.0.1:{gone}"):
        promote(PromotionRequest(model=name, version=register(name)), settings)


def test_a_name_stands_for_all_its_addresses(tmp_path: Path) -> None:
    """``localhost`` may have an address of each family; it is one server all the same."""
    from pipeline.flows.replicas import open_replicas

    local = Settings(triton_http="localhost:8000", triton_grpc="localhost:8001")
    with open_replicas(local) as replicas:
        assert [r.http_address for r in replicas] == ["localhost:8000"]
