"""What an author says by tags in MLflow is what the live server serves, unless somebody decides."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from pipeline.settings import Settings

pytestmark = pytest.mark.integration


def served_config(settings: Settings, name: str) -> Any:
    address = settings.triton_http.split(",")[0]
    url = f"http://{address}/v2/models/{name}/config"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def test_tags_decide_how_a_model_is_served_and_a_wrong_one_refuses_the_version(
    name: str,
    register: Callable[..., int],
    tritonpipe: Callable[..., Any],
    registry: MlflowClient,
    settings: Settings,
) -> None:
    register(name)
    for key, value in (("instances", "3"), ("max_batch_size", "8"), ("device", "gpu")):
        registry.set_registered_model_tag(name, f"tritonpipe.{key}", value)
    tags = {
        "max_batch_size": "16",
        "max_queue_delay_microseconds": "250",
        "preferred_batch_sizes": "4,8",
        "absolute_tolerance": "1e-3",
        "max_bach_size": "4",
    }
    for key, value in tags.items():
        registry.set_model_version_tag(name, "1", f"tritonpipe.{key}", value)

    done = tritonpipe("promote", f"{name}/1", TRITONPIPE_PREFERRED_BATCH_SIZES="2")
    assert done.code == 0, done.err
    assert "max_queue_delay_microseconds 250" in done.err
    assert "with absolute tolerance 0.001" in done.err
    assert "tritonpipe.max_bach_size='4'" in done.err
    assert "did you mean tritonpipe.max_batch_size?" in done.err
    assert "TRITONPIPE_DEVICE or tritonpipe.toml" in done.err
    config = served_config(settings, name)
    assert config["max_batch_size"] == 16
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 250
    assert config["dynamic_batching"]["preferred_batch_size"] == [2]
    assert [(g["count"], g["kind"]) for g in config["instance_group"]] == [(3, "KIND_CPU")]

    shown = tritonpipe("config", "show", f"{name}/1", "--json").data["settings"]
    assert shown["max_batch_size"] == {
        "value": 16,
        "from": f"tritonpipe.max_batch_size of version {name}/1",
    }
    assert shown["instances"]["from"] == f"tritonpipe.instances of registered model {name!r}"

    register(name)
    registry.set_registered_model_tag(name, "tritonpipe.max_batch_size", "lots")
    planned = tritonpipe("promote", f"{name}/2", "--dry-run")
    refused = tritonpipe("promote", f"{name}/2")
    for done in (planned, refused):
        assert done.code == 6
        assert f"tritonpipe.max_batch_size='lots' of registered model {name!r}" in done.err
        assert "expected a valid integer" in done.err
    recorded = registry.get_model_version(name, "2").tags
    assert recorded["tritonpipe.state"] == "refused"
    assert "lots" in recorded["tritonpipe.reason"]
    assert served_config(settings, name) == config

    registry.set_model_version_tag(name, "1", "tritonpipe.max_batch_size", "32")
    again = tritonpipe("promote", f"{name}/1")
    assert again.code == 0, again.err
    assert "keeps what it was released with: max_batch_size 16 (not 32)" in again.err
    assert served_config(settings, name) == config

    registry.set_model_version_tag(name, "2", "tritonpipe.max_batch_size", "32")
    assert tritonpipe("promote", f"{name}/2").code == 0
    assert served_config(settings, name)["max_batch_size"] == 32


def test_the_platform_says_which_tags_count(
    name: str,
    register: Callable[..., int],
    tritonpipe: Callable[..., Any],
    registry: MlflowClient,
    settings: Settings,
) -> None:
    register(name)
    registry.set_registered_model_tag(name, "tritonpipe.max_batch_size", "lots")
    registry.set_registered_model_tag(name, "tritonpipe.instances", "2")
    done = tritonpipe("promote", f"{name}/1", TRITONPIPE_AUTHOR_TAGS="instances")
    assert done.code == 0, done.err
    assert "author_tags leaves it out" in done.err
    config = served_config(settings, name)
    assert config["max_batch_size"] == settings.max_batch_size
    assert config["instance_group"][0]["count"] == 2

    again = tritonpipe("promote", f"{name}/1")  # what is released is served whatever tags say
    assert again.code == 0, again.err
    assert "no effect: the tag tritonpipe.max_batch_size='lots'" in again.err
    assert served_config(settings, name) == config
