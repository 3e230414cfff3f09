"""A watcher goes on when what it stands on goes away and comes back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import TritonpipeError
from pipeline.locks.leases import LEASE_SECONDS
from pipeline.stack import Stack


def is_served(scene: Any, version: int) -> bool:
    """Whether it answers; a Triton that is down answers nothing."""
    try:
        return bool(scene.served() == version)
    except TritonpipeError:
        return False


def test_mlflow_may_go_away_for_a_while(
    watching: Callable[..., Any], scene: Any, forwarded: Callable[..., Any]
) -> None:
    with forwarded(os.environ["MLFLOW_TRACKING_URI"]) as (address, is_open):
        watcher = watching("--model", scene.name, MLFLOW_TRACKING_URI=address)
        scene.wish(1)
        watcher.wait_for(kind="ended", outcome="promoted")
        is_open.clear()
        watcher.wait_for(kind="round failed")
        scene.wish(2)
        scene.assert_served(1)
        is_open.set()
        watcher.wait_for(2, kind="ended", outcome="promoted")
        scene.assert_served(2)


def test_the_store_may_go_away_for_longer_than_the_lead_is_held(
    watching: Callable[..., Any], scene: Any, forwarded: Callable[..., Any]
) -> None:
    with forwarded(os.environ["AWS_ENDPOINT_URL"]) as (address, is_open):
        watcher = watching("--model", scene.name, AWS_ENDPOINT_URL=address)
        scene.wish(1)
        watcher.wait_for(kind="ended", outcome="promoted")
        is_open.clear()
        watcher.wait_for(kind="round failed")
        scene.wish(2)
        time.sleep(LEASE_SECONDS)
        scene.assert_served(1)
        is_open.set()
        watcher.wait_for(2, kind="ended", outcome="promoted")
        scene.assert_served(2)


@pytest.mark.parametrize("part", ["mlflow", "s3", "triton"])
def test_a_server_may_be_restarted_in_the_midst_of_a_promotion(
    watching: Callable[..., Any],
    scene: Any,
    stack: Stack,
    until: Callable[..., None],
    part: str,
) -> None:
    watcher = watching("--model", scene.name)
    scene.wish(1)
    watcher.wait_for(kind="ended", outcome="promoted")
    scene.wish(2)
    watcher.wait_for(2, kind="started")
    stack.restart(part)
    until(lambda: is_served(scene, 2), watcher.events)
    scene.assert_served(2)
    until(lambda: scene.tags(2).get("tritonpipe.state") == "serving", watcher.events)
    assert watcher.told(kind="ended", outcome="Bug") == []
