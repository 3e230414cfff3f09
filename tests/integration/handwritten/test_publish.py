"""Hand-written entries on real servers: validated, served together, proven, taken back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pipeline.errors import ConfirmationError, ConflictError
from pipeline.flows.handwritten import publish
from pipeline.flows.servers import Servers
from pipeline.settings import Settings

EXAMPLE = Path(__file__).parents[3] / "model_repository" / "json-to-features"


def answers(servers: Servers, model: str, name: str, values: Any) -> list[tuple[int, Any]]:
    """Version and answer over both protocols."""
    inputs = {name: np.array(values)}
    found = [servers.replicas[0].infer(p, model, inputs) for p in ("grpc", "http")]
    return [(a.version, next(iter(a.outputs.values())).tolist()) for a in found]


def test_the_example_is_served_as_its_readme_says(
    tritonpipe: Callable[..., Any], servers: Servers
) -> None:
    done = tritonpipe("publish", EXAMPLE, "--json")
    assert done.code == 0, done.err
    [entry] = done.data["entries"]
    assert (entry["outcome"], entry["model"], entry["version"]) == ("published", EXAMPLE.name, 1)
    rows = [['{"is_member": 0, "age": "3"}'], ["{}"]]
    expected = [[3.0, -1.0, 0.0], [-1.0, -1.0, -1.0]]
    texts = np.array(rows, dtype=object)
    assert answers(servers, EXAMPLE.name, "json", texts) == [(1, expected)] * 2
    again = tritonpipe("publish", f"{EXAMPLE}/", "--json").data["entries"]
    assert [e["outcome"] for e in again] == ["unchanged"]
    [status] = tritonpipe("status", EXAMPLE.name, "--json").data["models"]
    assert (status["state"], status["registered_model"]) == ("ok, published by hand", "")
    assert "none: published by hand" in tritonpipe("inspect", EXAMPLE.name).out
    assert "publish" in tritonpipe("history", EXAMPLE.name).out


def test_an_ensemble_and_its_steps_change_and_go_back_together(
    workbench: Any, settings: Settings, servers: Servers, tritonpipe: Callable[..., Any]
) -> None:
    double = workbench.step("double", factor=2.0)
    triple = workbench.step("triple", factor=3.0)
    both = workbench.ensemble("both", "double", "triple", factor=6.0)
    rows = np.array([[1.0, 2.0]], np.float32)
    first = publish([both, triple, double], settings)
    assert [e.model for e in first.entries][-1] == both.name, "steps before ensembles"
    assert answers(servers, both.name, "X", rows) == [(1, [[6.0, 12.0]])] * 2

    for entry in (double, triple, both):
        workbench.next_version(entry)
    workbench.step("double", factor=20.0, version=2)
    workbench.step("triple", factor=30.0, version=2)
    workbench.answer(both, "X", "Y", 600.0)
    second = publish([double, triple, both], settings)
    assert {e.previous for e in second.entries} == {1}
    assert answers(servers, both.name, "X", rows) == [(2, [[600.0, 1200.0]])] * 2
    assert {e.outcome for e in publish([double, triple, both], settings).entries} == {"unchanged"}

    back = tritonpipe("rollback", both.name, "--json")
    assert back.code == 0, back.err
    assert answers(servers, both.name, "X", rows) == [(1, [[6.0, 12.0]])] * 2
    assert answers(servers, double.name, "x", rows) == [(1, [[2.0, 4.0]])] * 2


def test_one_changed_step_of_several_entries_changes_alone(
    workbench: Any, settings: Settings, servers: Servers, tritonpipe: Callable[..., Any]
) -> None:
    steps = [workbench.step("one", factor=2.0), workbench.step("other", factor=3.0)]
    publish(steps, settings)
    workbench.next_version(steps[0])
    workbench.step("one", factor=5.0, version=2)
    result = publish(steps, settings)
    assert {e.model: e.outcome for e in result.entries} == {
        steps[0].name: "published",
        steps[1].name: "unchanged",
    }
    assert tritonpipe("rollback", steps[0].name).code == 0
    rows = np.array([[1.0, 2.0]], np.float32)
    assert answers(servers, steps[0].name, "x", rows) == [(1, [[2.0, 4.0]])] * 2


def test_a_wrong_answer_is_taken_back_and_can_be_corrected(
    workbench: Any, settings: Settings, servers: Servers
) -> None:
    entry = workbench.step("wrong", factor=2.0)
    workbench.answer(entry, "x", "y", 3.0)
    with pytest.raises(
        ConfirmationError, match=r"otherwise than its author says.*expected -9, found -6"
    ):
        publish([entry], settings)
    assert servers.repository.list_folder(entry.name) == []
    workbench.answer(entry, "x", "y", 2.0)
    [published] = publish([entry], settings).entries
    assert (published.outcome, published.version) == ("published", 1)


def test_published_bytes_never_change(
    workbench: Any, settings: Settings, servers: Servers, tritonpipe: Callable[..., Any]
) -> None:
    entry = workbench.step("fixed", factor=2.0)
    publish([entry], settings)
    before = servers.repository.list_folder(entry.name)
    workbench.step("fixed", factor=4.0)
    refused = tritonpipe("publish", entry, "--json")
    assert refused.data["error"]["kind"] == "ConflictError"
    assert "other files and golden answers" in refused.data["error"]["message"]
    assert "git mv 1 2" in refused.data["error"]["hint"]
    workbench.next_version(entry)
    plan = tritonpipe("publish", entry, "--dry-run", "--json").data
    assert [p["version"] for p in plan] == [2]
    assert servers.repository.list_folder(entry.name) == before
    publish([entry], settings)
    assert tritonpipe("rollback", entry.name).code == 0
    # The folder still holds version 2, which is served again from its release.
    assert publish([entry], settings).entries[0].outcome == "published"
    rows = np.array([[1.0, 2.0]], np.float32)
    assert answers(servers, entry.name, "x", rows) == [(2, [[4.0, 8.0]])] * 2


def test_an_onnx_file_of_ones_own_is_served(
    workbench: Any, settings: Settings, servers: Servers
) -> None:
    entry = workbench.step("product", factor=2.0)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "twice",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(
        helper.make_model(graph, opset_imports=[opset], ir_version=10), entry / "1" / "model.onnx"
    )
    (entry / "1" / "model.py").unlink()
    config = entry / "config.pbtxt"
    config.write_text(config.read_text().replace('"python"', '"onnxruntime"'))
    assert publish([entry], settings).entries[0].confirmation.ok
    rows = np.array([[1.0, 2.0]], np.float32)
    assert answers(servers, entry.name, "x", rows) == [(1, [[2.0, 4.0]])] * 2


def test_the_registry_and_the_hand_do_not_take_models_from_each_other(
    workbench: Any, settings: Settings, servers: Servers
) -> None:
    entry = workbench.step("owned", factor=2.0)
    publish([entry], settings)
    record = f"{entry.name}/releases/1/release.json"
    text = (servers.journal.store.get(record) or b"").decode()
    theirs = text.replace('registered_model\\": \\"\\"', 'registered_model\\": \\"fraud\\"')
    assert theirs != text
    servers.journal.store.put(record, theirs.encode())
    with pytest.raises(ConflictError, match="serves the registered model 'fraud'"):
        publish([entry], settings)


def test_a_step_that_an_ensemble_could_not_use_is_refused_and_the_ensemble_goes_on(
    workbench: Any, settings: Settings, servers: Servers
) -> None:
    step = workbench.step("step", factor=2.0)
    above = workbench.ensemble("above", "step", factor=2.0)
    publish([step, above], settings)
    workbench.next_version(step)
    workbench.step("step", factor=2.0, version=2)
    for file in ("config.pbtxt", "golden.json"):
        text = (step / file).read_text()
        (step / file).write_text(text.replace("FP32", "FP64"))
    with pytest.raises(ConflictError, match=r"tensor 'X' is FP32.* and FP64"):
        publish([step], settings)
    rows = np.array([[1.0, 2.0]], np.float32)
    assert answers(servers, above.name, "X", rows) == [(1, [[2.0, 4.0]])] * 2
