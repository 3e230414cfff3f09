"""The loop on the real MLflow, S3 and Triton: an alias is all that anybody sets."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from mlflow.exceptions import MlflowException

pytestmark = pytest.mark.integration

Start: TypeAlias = Callable[..., Any]
Command: TypeAlias = Callable[..., Any]


def test_an_alias_is_set_moved_and_moved_back(watching: Start, scene: Any) -> None:
    watcher = watching("--model", scene.name)
    watcher.wait_for(kind="leading")
    for version, times in ((1, 1), (2, 2), (1, 3)):
        scene.wish(version)
        ended = watcher.wait_for(times, kind="ended", model=scene.name, outcome="promoted")
        scene.assert_served(version)
        assert ("export" in ended["stages"]) is (times < 3)
        stages = watcher.told(kind="stage", promotion=ended["promotion"])
        assert {e["stage"]: e["seconds"] for e in stages} == ended["stages"]
        tags = scene.tags(version)
        assert tags["tritonpipe.state"] == "serving"
    assert scene.tags(2)["tritonpipe.state"] == "superseded"
    assert watcher.end() == 0


def test_an_alias_that_flaps_ends_where_it_was_left(
    watching: Start, scene: Any, until: Callable[..., None]
) -> None:
    watcher = watching("--model", scene.name)
    scene.wish(1)
    watcher.wait_for(kind="ended", model=scene.name, outcome="promoted")
    for flap in range(20):
        scene.wish(1 + flap % 2)
        time.sleep(0.15)
        assert scene.served() in {1, 2}
    until(lambda: scene.served() == 2, watcher.events)
    scene.assert_served(2)
    assert watcher.told(kind="ended", outcome="Bug") == []


def test_what_is_refused_stays_refused_and_what_was_served_stays_served(
    watching: Start, register: Command, scene: Any
) -> None:
    watcher = watching("--model", scene.name)
    scene.wish(1)
    watcher.wait_for(kind="ended", outcome="promoted")
    bad = register(scene.name, input_example=None)  # without a signature, nobody knows its inputs
    scene.wish(bad)
    watcher.wait_for(kind="ended", outcome="ModelError")
    told = watcher.wait_for(kind="standing", outcome="refused")
    assert told["message"]
    tags = scene.tags(bad)
    assert (tags["tritonpipe.state"], bool(tags["tritonpipe.reason"])) == ("refused", True)
    time.sleep(2.0)  # several rounds
    assert len(watcher.told(kind="started")) == 2
    scene.assert_served(1)
    scene.registry.set_model_version_tag(scene.name, str(bad), "tritonpipe.retry", "1")
    watcher.end()
    again = watching("--model", scene.name)
    again.wait_for(kind="ended", outcome="ModelError")
    scene.wish(2)
    again.wait_for(kind="ended", outcome="promoted")
    scene.assert_served(2)


def test_a_wrong_tag_of_the_registered_model_refuses_until_it_is_set_right(
    watching: Start, scene: Any
) -> None:
    watcher = watching("--model", scene.name)
    scene.wish(1)
    watcher.wait_for(kind="ended", outcome="promoted")
    scene.registry.set_registered_model_tag(scene.name, "tritonpipe.instances", "many")
    scene.wish(2)
    ended = watcher.wait_for(kind="ended", outcome="ModelError")
    assert "tritonpipe.instances='many' of registered model" in ended["message"]
    watcher.wait_for(kind="standing", outcome="refused")
    scene.assert_served(1)
    watcher.end()
    scene.registry.set_registered_model_tag(scene.name, "tritonpipe.instances", "2")
    again = watching("--model", scene.name)
    again.wait_for(kind="ended", outcome="promoted")
    scene.assert_served(2)


def test_somebodys_rollback_is_not_undone(watching: Start, tritonpipe: Command, scene: Any) -> None:
    watcher = watching("--model", scene.name)
    for version in (1, 2):
        scene.wish(version)
        watcher.wait_for(version, kind="ended", outcome="promoted")
    assert tritonpipe("rollback", scene.name).code == 0
    watcher.wait_for(kind="standing", outcome="held")
    time.sleep(1.5)
    scene.assert_served(1)


def test_of_two_watchers_one_acts_and_the_other_takes_over(
    watching: Start, tritonpipe: Command, scene: Any, until: Callable[..., None]
) -> None:
    first = watching("--model", scene.name)
    first.wait_for(kind="leading")
    once = tritonpipe("watch", "--once", "--model", scene.name, TRITONPIPE_LOCK_SECONDS="1")
    assert (once.code, "another watcher" in once.err) == (9, True)
    second = watching("--model", scene.name)
    second.wait_for(kind="waiting")
    scene.wish(1)
    first.wait_for(kind="ended", outcome="promoted")
    scene.wish(2)
    first.wait_for(2, kind="started")
    first.end(signal.SIGKILL)
    second.wait_for(kind="leading")
    until(lambda: scene.served() == 2, second.events)
    scene.assert_served(2)


def test_a_removed_alias_takes_the_model_away_if_that_is_wished(
    watching: Start, scene: Any, until: Callable[..., None]
) -> None:
    watcher = watching("--model", scene.name, "--unload", "--unload-after", "0.5")
    scene.wish(1)
    watcher.wait_for(kind="ended", outcome="promoted")
    scene.registry.delete_registered_model_alias(scene.name, "champion")
    watcher.wait_for(kind="ended", outcome="retired")
    until(lambda: not scene.servers.replicas[0].is_ready(scene.name, 1))
    assert scene.servers.repository.list_folder(scene.name) == []
    assert scene.tags(1)["tritonpipe.state"] == "retired"


def test_a_model_that_is_deleted_under_way_ends_its_work(watching: Start, scene: Any) -> None:
    watcher = watching("--model", scene.name)
    scene.wish(1)
    watcher.wait_for(kind="started")
    scene.registry.delete_registered_model(scene.name)
    watcher.wait_for(kind="ended", model=scene.name)
    assert watcher.told(kind="ended", outcome="Bug") == []
    assert watcher.end() == 0


def test_no_alias_can_name_a_missing_version_and_one_that_is_deleted_is_served_on(
    watching: Start, scene: Any
) -> None:
    watcher = watching("--model", scene.name)
    scene.wish(1)
    watcher.wait_for(kind="ended", outcome="promoted")
    with pytest.raises(MlflowException, match="not found"):
        scene.wish(99)
    scene.registry.delete_model_version(scene.name, "1")  # and its alias with it
    time.sleep(2.0)  # several rounds
    scene.assert_served(1)
    assert len(watcher.told(kind="started")) == 1


def test_once_does_what_can_be_done_and_tells_how_things_stand(
    tritonpipe: Command, register: Command, scene: Any
) -> None:
    scene.wish(2)
    done = tritonpipe("watch", "--once", "--json", "--model", f"{scene.name}*")
    assert (done.code, [s["state"] for s in done.data]) == (0, ["serving"])
    other = f"{scene.name}-bad"
    register(other, input_example=None)
    scene.registry.set_registered_model_alias(other, "champion", 1)
    done = tritonpipe("watch", "--once", "--json", "--model", f"{scene.name}*")
    assert done.code == 12
    assert {s["model"]: s["state"] for s in done.data} == {scene.name: "serving", other: "refused"}


def test_a_file_says_which_aliases_are_served_and_after_what(
    watching: Start, tmp_path: Path, scene: Any
) -> None:
    file = tmp_path / "tritonpipe.toml"
    file.write_text(
        f'[models."{scene.name}"]\n'
        f'serve = {{ champion = "{scene.name}", challenger = "{scene.name}-challenger" }}\n'
        'requires = { validation_status = "approved" }\n'
        'metrics = { accuracy = ">= 0.5" }\n'
    )
    watcher = watching("--model", scene.name, "--config", str(file))
    scene.wish(1)
    scene.wish(2, "challenger")
    told = watcher.wait_for(kind="standing", model=scene.name, outcome="awaiting approval")
    assert "validation_status" in told["message"]
    for version in "12":
        scene.registry.set_model_version_tag(scene.name, version, "validation_status", "approved")
    watcher.end()  # the tags of a version are looked at every 30 s
    again = watching("--model", scene.name, "--config", str(file))
    again.wait_for(2, kind="ended", outcome="promoted")
    scene.assert_served(1)
    scene.assert_served(2, f"{scene.name}-challenger")
    file.write_text(f'[models."{scene.name}"]\nserve = {{ third = "{scene.name}-third" }}\n')
    again.wait_for(kind="configured")
    scene.wish(2, "third")
    again.wait_for(3, kind="ended", outcome="promoted")
    scene.assert_served(2, f"{scene.name}-third")


def test_an_address_that_is_taken_is_told(tritonpipe: Callable[..., Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = tritonpipe("watch", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (done.code, "--listen" in done.err) == (4, True)
