"""Promotion on real servers: what is wished is served, once, and can be taken back."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mlflow.tracking import MlflowClient
from onnx import TensorProto, helper, numpy_helper

from pipeline.artifacts import PromotionRequest
from pipeline.demo.run import run_demo
from pipeline.flows.progress import silent
from pipeline.flows.promote import promote
from pipeline.flows.servers import Servers
from pipeline.settings import Settings
from pipeline.testing.s3_proxy import S3Proxy

pytestmark = pytest.mark.integration


def listing(servers: Servers, model: str) -> dict[str, object]:
    return {o.key: (o.etag, o.last_modified) for o in servers.repository.list_folder(model)}


def test_the_demo_does_what_it_says(stack: Any) -> None:
    result = run_demo(stack.environment_variables(), silent)
    assert result.requests.errors == ()
    assert result.ok
    assert result.requests.sent > 100
    first, second = result.trained[0].version, result.trained[2].version
    assert set(result.requests.versions) == {first, second}
    assert result.rollback.confirmation.version == first
    assert all(p.outcome == "promoted" for p in result.promotions)


def test_promotion_is_recorded_where_the_scientist_looks(
    name: str, register: Callable[..., int], tritonpipe: Callable[..., Any], registry: MlflowClient
) -> None:
    register(name)
    registry.set_registered_model_alias(name, "champion", "1")
    done = tritonpipe("promote", f"{name}@champion", "--json")
    assert done.code == 0, done.err
    assert done.data["outcome"] == "promoted"
    version = registry.get_model_version(name, "1")
    tags = version.tags
    assert tags["tritonpipe.state"] == "serving"
    assert tags["tritonpipe.triton_version"] == "1"
    assert tags["tritonpipe.release_digest"] == done.data["digest"]
    assert float(tags["tritonpipe.max_absolute_error"]) < 1e-4
    paths = [f.path for f in registry.list_artifacts(version.run_id, f"tritonpipe/{name}-1")]
    assert "report.html" in {Path(p).name for p in paths}


def test_the_live_server_can_be_asked_again_at_any_time(
    name: str, register: Callable[..., int], tritonpipe: Callable[..., Any], settings: Settings
) -> None:
    register(name)
    promote(PromotionRequest(model=name, version=1), settings)
    done = tritonpipe("verify", name, "--json")
    assert done.code == 0, done.err
    assert done.data["confirmation"]["version"] == 1
    assert {c["subject"] for c in done.data["confirmation"]["comparisons"]} == {
        "triton grpc",
        "triton http",
    }
    missing = tritonpipe("verify", f"{name}-nobody", "--json")
    assert missing.code == 3


def test_the_same_model_under_another_name_is_not_exported_again(
    name: str, register: Callable[..., int], settings: Settings, tritonpipe: Callable[..., Any]
) -> None:
    register(name)
    first = promote(PromotionRequest(model=name, version=1), settings)
    done = tritonpipe("promote", f"{name}/1", "--name", f"{name}-again", "--json")
    assert done.code == 0, done.err
    assert "made before" in done.err
    assert done.data["outcome"] == "promoted"
    assert done.data["report"]["comparisons"], "what was kept is compared all the same"
    assert first.report is not None
    listed = tritonpipe("cache", "ls", "--json")
    assert f"{name}/1" in {entry["model"] for entry in listed.data}


def test_promoting_twice_is_promoting_once(
    name: str, register: Callable[..., int], settings: Settings, servers: Servers
) -> None:
    register(name)
    request = PromotionRequest(model=name, version=1)
    assert promote(request, settings).outcome == "promoted"
    before = listing(servers, name)
    again = promote(request, settings)
    assert again.outcome == "unchanged"
    assert "export" not in again.seconds
    assert listing(servers, name) == before


def test_a_promotion_of_what_is_served_asks_the_repository_for_three_objects(
    name: str, register: Callable[..., int], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(name)
    request = PromotionRequest(model=name, version=1)
    promote(request, settings)
    upstream = int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])
    with S3Proxy(upstream, lambda _request: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert promote(request, settings).outcome == "unchanged"
        requests = [str(seen.request) for seen in proxy.seen]
    assert [r for r in requests if f"repository/{name}/" in r] == [
        f"LIST /models/repository/{name}/",
        f"GET /models/repository/{name}/config.pbtxt",
        f"GET /models/repository/{name}/1/manifest.json",
    ]
    assert not [r for r in requests if not r.startswith(("GET ", "HEAD ", "LIST "))]


def test_a_second_version_a_rollback_and_the_way_back(
    name: str,
    register: Callable[..., int],
    new_classifier: Callable[[int], Any],
    tritonpipe: Callable[..., Any],
    settings: Settings,
    registry: MlflowClient,
    servers: Servers,
    rows: Any,
) -> None:
    models = {v: new_classifier(v) for v in (1, 2)}
    for model in models.values():
        register(name, model)

    def assert_served(version: int) -> None:
        answer = servers.replicas[0].infer("grpc", name, {"X": rows})
        assert answer.version == version
        expected = models[version].predict_proba(rows)
        np.testing.assert_allclose(answer.outputs["probabilities"], expected, 1e-3, 1e-5)
        state = {
            v: registry.get_model_version(name, str(v)).tags.get("tritonpipe.state") for v in models
        }
        assert state[version] == "serving"
        assert state[3 - version] in {"superseded", None}

    promote(PromotionRequest(model=name, version=1), settings)
    nothing_before = tritonpipe("rollback", name)
    assert nothing_before.code == 3
    assert "nothing to roll back to" in nothing_before.err
    promote(PromotionRequest(model=name, version=2), settings)
    assert_served(2)
    files = {k: v for k, v in listing(servers, name).items() if not k.endswith("config.pbtxt")}
    unknown = tritonpipe("rollback", name, "--to", "9")
    assert unknown.code == 3
    assert "it has 1, 2" in unknown.err
    plan = tritonpipe("rollback", name, "--dry-run", "--json")
    assert plan.data == {"model": name, "version": 1, "previous": 2, "together": []}
    assert_served(2)
    back = tritonpipe("rollback", name, "--json")
    assert back.code == 0, back.err
    assert back.data["confirmation"]["version"] == 1
    registry.set_registered_model_alias(name, "champion", "2")
    [status] = tritonpipe("status", name, "--json").data["models"]
    assert status["state"] == "rolled back from version 2, which the alias still wishes"
    assert_served(1)
    forward = tritonpipe("promote", f"{name}/2", "--json")
    assert "export" not in forward.data["seconds"]
    assert_served(2)
    after = {k: v for k, v in listing(servers, name).items() if not k.endswith("config.pbtxt")}
    assert after == files


def test_status_and_inspect_tell_wish_truth_and_origin(
    name: str, register: Callable[..., int], tritonpipe: Callable[..., Any], registry: MlflowClient
) -> None:
    register(name)
    registry.set_registered_model_alias(name, "champion", "1")
    [before] = tritonpipe("status", name, "--json").data["models"]
    assert (before["wished"], before["published"], before["served"]) == (1, None, None)
    assert tritonpipe("promote", name).code == 0
    [after] = tritonpipe("status", name, "--json").data["models"]
    assert (after["wished"], after["published"], after["served"]) == (1, 1, 1)
    assert after["state"] == "ok"
    found = tritonpipe("inspect", f"{name}/1", "--json").data
    run_id = registry.get_model_version(name, "1").run_id
    assert found["run"]["run_id"] == run_id
    assert found["run"]["metrics"] == {"accuracy": 0.5}
    assert found["intact"]
    assert found["served"]
    assert [e["event"] for e in found["events"]] == ["committing", "confirmed"]
    assert found["digest"] == after["digest"]
    assert [i["name"] for i in found["inputs"]] == ["X"]
    assert f"/runs/{run_id}/artifacts/tritonpipe/{name}-1/report.html" in found["report"]
    assert tritonpipe("status", name, "--check").code == 0
    registry.set_registered_model_alias(name, "champion", str(register(name)))
    registry.set_model_version_tag(name, "2", "tritonpipe.state", "refused")
    registry.set_model_version_tag(name, "2", "tritonpipe.reason", "it is no good")
    [refused] = tritonpipe("status", name, "--json").data["models"]
    assert refused["state"] == "version 2 is wished, but was refused: it is no good"
    assert tritonpipe("status", name, "--check").code == 12


def test_a_dry_run_changes_nothing(
    name: str,
    register: Callable[..., int],
    tritonpipe: Callable[..., Any],
    registry: MlflowClient,
    servers: Servers,
) -> None:
    register(name)
    done = tritonpipe("promote", f"{name}/1", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert done.data["commit"]
    assert [u["path"] for u in done.data["uploads"]] == [
        "model.onnx",
        "warmup-0.bin",
        "manifest.json",
    ]
    assert listing(servers, name) == {}
    assert servers.journal.entries(name) == []
    assert registry.get_model_version(name, "1").tags == {}


def test_an_onnx_model_with_external_data_is_served(
    name: str, register: Callable[..., int], settings: Settings, servers: Servers
) -> None:
    weights = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 64])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    register(name, model, flavor="onnx")
    result = promote(PromotionRequest(model=name, version=1), settings)
    keys = [k for k in listing(servers, name) if "/1/" in k and "warmup" not in k]
    assert len(keys) == 3, "graph, external data and manifest"
    x = np.ones((2, 64), dtype=np.float32)
    answer = servers.replicas[0].infer("http", name, {"x": x})
    np.testing.assert_allclose(answer.outputs["y"], x @ weights, rtol=1e-4)
    assert result.confirmation.version == 1


def test_a_model_without_batching_is_warmed_up_before_it_answers(
    name: str, register: Callable[..., int], settings: Settings, servers: Servers
) -> None:
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "negation",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    register(name, model, flavor="onnx")
    promote(PromotionRequest(model=name, version=1), settings)
    address = f"http://{settings.triton_http}/v2/models/{name}/versions/1/stats"
    with urllib.request.urlopen(address, timeout=10) as answer:
        [statistics] = json.load(answer)["model_stats"]
    confirming = 6
    assert int(statistics["inference_count"]) == confirming + 1


def test_a_name_of_its_own_and_no_other_model_under_it(
    name: str, register: Callable[..., int], tritonpipe: Callable[..., Any], servers: Servers
) -> None:
    for registered in (f"{name} with spaces", f"{name}-other", f"{name}-other"):
        register(registered)
    refused = tritonpipe("promote", f"{name} with spaces/1")
    assert refused.code == 3
    assert f"--name {name}-with-spaces" in refused.err
    assert tritonpipe("promote", f"{name} with spaces/1", "--name", name).code == 0
    for version in (1, 2):
        taken = tritonpipe("promote", f"{name}-other/{version}", "--name", name)
        assert taken.code == 9
        assert f"serves '{name} with spaces'" in taken.err
    assert servers.replicas[0].is_ready(name, 1)


def test_everything_is_served_again_after_a_restart_of_triton(
    stack: Any, served: Any, tritonpipe: Callable[..., Any]
) -> None:
    stack.restart("triton")
    served.assert_still_served()
    [status] = tritonpipe("status", served.name, "--json").data["models"]
    assert (status["published"], status["served"]) == (1, 1)
