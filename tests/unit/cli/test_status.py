"""``tritonpipe status | inspect`` with a store in memory and servers that may be down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from obstore.store import MemoryStore

from pipeline.artifacts import ModelVersion, PromotionRequest, Release
from pipeline.cli import tritonpipe
from pipeline.errors import RequestError, UnavailableError
from pipeline.flows import inspection as inspection_flow
from pipeline.flows.journal import Journal
from pipeline.flows.servers import Servers
from pipeline.manifest import Lineage, Manifest
from pipeline.registries import RegisteredModel, Run
from pipeline.samples import Samples
from pipeline.stores.objects import ObjectStore
from pipeline.testing.simulated import SimulatedLocks
from pipeline.triton import VersionState
from pipeline.watch import status as status_flow


class World:
    """What the three sources hold; a source that is down does not answer."""

    def __init__(self) -> None:
        self.aliases: dict[str, int] = {}  # of champion
        self.challengers: dict[str, int] = {}
        self.tags: dict[tuple[str, int], dict[str, str]] = {}
        self.index: dict[str, dict[int, VersionState]] = {}
        self.runs: dict[str, Run] = {}
        self.down: set[str] = set()
        self.requests: list[str] = []
        self.repository = ObjectStore("memory://repository", MemoryStore())
        self.journal = Journal(ObjectStore("memory://records", MemoryStore()))

    def publish(self, model: str, version: int, *, registered: str = "") -> None:
        lineage = Lineage(
            registered_model=registered or model,
            registered_version=version,
            run_id="run-1",
            source="models:/m",
            source_digest="sha256:0",
            flavor="onnx",
        )
        manifest = Manifest(
            model=model, version=version, config_sha256="0", files=(), lineage=lineage, tools={}
        )
        config = (
            f"version_policy {{ specific {{ versions: [{version}] }} }} max_batch_size: 8 "
            'input { name: "x" data_type: TYPE_FP32 dims: [13] } '
            'output { name: "label" data_type: TYPE_STRING dims: [1] } '
            "dynamic_batching { max_queue_delay_microseconds: 100 }"
        )
        release = Release(
            manifest=manifest, config=config, relative_tolerance=0.5, absolute_tolerance=0.25
        )
        rows = {"x": np.zeros((1, 1), np.float32)}
        self.journal.keep(release, Samples(inputs=rows, outputs=rows))
        self.repository.put(f"{model}/{version}/manifest.json", manifest.to_bytes())
        self.repository.put(f"{model}/config.pbtxt", config.encode())
        self.index[model] = {version: VersionState(state="READY", reason="")}

    def ask(self, source: str) -> None:
        self.requests.append(source)
        if source in self.down:
            raise UnavailableError(f"{source} does not answer")

    # As a registry.
    def registered_models(self) -> list[RegisteredModel]:
        self.ask("MLflow")
        named = {"champion": self.aliases, "challenger": self.challengers}
        return [
            RegisteredModel(
                name=name, aliases={a: of[name] for a, of in named.items() if name in of}
            )
            for name in sorted(self.aliases | self.challengers)
        ]

    def tags_now(self, version: ModelVersion) -> Mapping[str, str] | None:
        self.ask(f"MLflow about {version}")
        return self.tags.get((version.name, version.version))

    def resolve(self, request: PromotionRequest) -> ModelVersion:
        self.ask(f"MLflow about {request.model}/{request.version}")
        number = request.version or 0
        tags = self.tags.get((request.model, number), {})
        return ModelVersion(
            name=request.model, version=number, run_id="run-1", source="", tags=tags
        )

    def run(self, run_id: str) -> Run | None:
        self.ask("MLflow")
        return self.runs.get(run_id)

    # As a Triton.
    http_address = "triton:8000"

    def require_live(self) -> None:
        self.ask("Triton")

    def all_versions(self) -> dict[str, dict[int, VersionState]]:
        self.ask("Triton")
        return self.index


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()

    @contextmanager
    def opened(_settings: object) -> Iterator[Servers]:
        server: Any = world
        yield Servers(
            registry=server,
            repository=world.repository,
            journal=world.journal,
            replicas=(server,),
            locks=SimulatedLocks(),
        )

    for flow in (status_flow, inspection_flow):
        monkeypatch.setattr(flow, "open_servers", opened)
    return world


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(
        tritonpipe, arguments, catch_exceptions=False, standalone_mode=False
    )
    assert (result.return_value or 0) == code, result.output
    return result


def states(*arguments: str) -> dict[str, str]:
    models = json.loads(run("status", *arguments, "--json").stdout)["models"]
    assert len({m["model"] for m in models}) == len(models)
    return {m["model"]: m["state"] for m in models}


def test_a_model_served_under_another_name_is_one_row(world: World) -> None:
    world.publish("fraud", 3, registered="Fraud model")
    world.aliases = {"Fraud model": 3}
    assert states() == states("fraud") == states("Fraud model") == {"fraud": "ok"}


def test_only_what_is_wished_is_to_be_promoted(world: World) -> None:
    world.publish("old", 1)
    world.publish("behind", 1)
    world.repository.put("leftover/1/model.onnx", b"x")
    world.aliases = {"behind": 2, "new": 1}
    assert states() == {
        "behind": "version 2 is wished: promote it",
        "leftover": "not published, not wished by an alias",
        "new": "version 1 is wished: promote it",
        "old": "served, not wished by an alias",
    }
    assert states("new") == {"new": "version 1 is wished: promote it"}
    with pytest.raises(RequestError, match="neither published nor wished"):
        states("none")


def test_what_triton_serves_is_told_from_what_is_published(world: World) -> None:
    for model in ("unserved", "late", "ok"):
        world.publish(model, 2)
        world.aliases[model] = 2
    world.index["unserved"] = {2: VersionState(state="UNAVAILABLE", reason="no memory")}
    world.index["late"] = {1: VersionState(state="READY", reason="")}
    assert states() == {
        "late": "Triton still serves 1",
        "ok": "ok",
        "unserved": "published, not served: see the server's log",
    }


def test_each_server_is_asked_once_for_all_models(world: World) -> None:
    for number in range(5):
        world.publish(f"m{number}", 1)
    states()
    assert sorted(world.requests) == ["MLflow", "Triton", "Triton"]  # the latter: is it live?


@pytest.mark.parametrize(
    ("down", "state"),
    [("MLflow", "served; the registry does not answer"), ("Triton", "published; Triton does not")],
)
@pytest.mark.parametrize("options", [[], ["--check"], ["--json"]])
def test_a_source_that_is_down_is_told_and_the_exit_code_says_so(
    world: World, down: str, state: str, options: list[str]
) -> None:
    world.publish("m", 1)
    world.aliases, world.down = {"m": 1}, {down}
    result = run("status", *options, code=8)
    assert state in result.stdout
    assert f"warning: {down} does not answer" in result.stderr


def _rolled_back(world: World) -> None:
    world.aliases["m"] = 2


def _unpublished(world: World) -> None:
    world.aliases["new"] = 1


def _not_served(world: World) -> None:
    world.index["m"] = {1: VersionState(state="UNAVAILABLE", reason="")}


def _unreadable(world: World) -> None:
    world.repository.put("theirs/config.pbtxt", b"\xff")


@pytest.mark.parametrize("change", [_rolled_back, _unpublished, _not_served, _unreadable])
def test_a_difference_is_a_failure_only_where_that_is_asked(
    world: World, change: Callable[[World], None]
) -> None:
    world.publish("m", 1)
    world.publish("other", 1)
    world.aliases = {"m": 1}  # the other one was not wished by this alias
    run("status", "--check")
    change(world)
    run("status")
    run("status", "--check", code=12)
    run("status", "other", "--check")


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize(("state", "told"), [("refused", "was refused"), ("failed", "failed")])
def test_a_wish_that_was_refused_is_not_to_be_promoted(
    world: World, published: bool, state: str, told: str
) -> None:
    if published:
        world.publish("m", 1)
    world.aliases = {"m": 2}
    reason = "the answers\ndisagree " + "by far " * 100
    world.tags = {("m", 2): {"tritonpipe.state": state, "tritonpipe.reason": reason}}
    assert states()["m"].startswith(f"version 2 is wished, but {told}: the answers disagree by")
    assert len(states()["m"]) < 220
    world.tags = {("m", 2): {}, ("m", 1): {"tritonpipe.state": "refused"}}
    assert states() == {"m": "version 2 is wished: promote it"}


def test_only_what_is_not_as_wished_is_asked_for_its_outcome(world: World) -> None:
    for model in ("ok", "behind"):
        world.publish(model, 1)
    world.aliases = {"ok": 1, "behind": 2, "new": 1}
    states()
    assert [r for r in world.requests if "about" in r] == [
        "MLflow about behind/2",
        "MLflow about new/1",
    ]
    world.requests.clear()
    states("ok")
    assert not [r for r in world.requests if "about" in r]


_TABLES = """
[models."fraud"]
serve = { champion = "fraud", challenger = "fraud-challenger" }

[models."dev.*"]
watch = false

[models."careful"]
requires = { validation_status = "approved" }

[models."measured"]
metrics = { auc = ">= 0.9" }
"""


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "tritonpipe.toml"
    file.write_text(_TABLES)
    monkeypatch.setenv("TRITONPIPE_CONFIG", str(file))
    return file


def test_each_name_is_compared_with_the_alias_that_its_table_serves_there(
    world: World, tables: Path
) -> None:
    world.aliases, world.challengers = {"fraud": 1}, {"fraud": 2, "plain": 9}
    world.publish("fraud", 1)
    world.publish("fraud-challenger", 2, registered="fraud")
    assert states() == {"fraud": "ok", "fraud-challenger": "ok"} == states("fraud")
    shown = run("status", "--check").stdout
    assert "1 (champion)" in shown
    assert "2 (challenger)" in shown
    assert not [r for r in world.requests if "about" in r]
    world.challengers["fraud"] = 3
    behind = {"fraud": "ok", "fraud-challenger": "version 3 is wished: promote it"}
    assert states() == states("fraud") == behind
    run("status", "--check", code=12)
    run("status", "fraud-challenger", "--check", code=12)


@pytest.mark.parametrize("name", ["fraud-challenger", "elsewhere"])
def test_parts_are_compared_with_the_wish_for_the_name_that_clients_ask(
    world: World, tables: Path, name: str
) -> None:
    registered = "fraud" if name == "fraud-challenger" else "texts"
    world.aliases, world.challengers = {"texts": 2}, {"fraud": 2}
    names = (name, f"{name}.network", f"{name}.tokenizer")
    for model in names:
        world.publish(model, 2, registered=registered)
        world.journal.append(
            model,
            action="promote",
            event="confirmed",
            version=2,
            previous=None,
            together=tuple(f"{each}/2" for each in names),
        )
    found = states(name)
    assert found == dict.fromkeys(names, "ok")
    world.aliases["texts"] = world.challengers["fraud"] = 3
    assert states(name) == dict.fromkeys(names, "version 3 is wished: promote it")


def test_a_wish_is_not_fulfilled_under_the_name_of_another(world: World, tables: Path) -> None:
    world.aliases, world.challengers = {"fraud": 1}, {"fraud": 2}
    world.publish("fraud-challenger", 2, registered="fraud")
    assert states()["fraud"] == "version 1 is wished: promote it"
    world.publish("fraud", 1, registered="other")
    assert states()["fraud"] == "version 1 is wished: promote it"
    run("status", "--check", code=12)


def test_what_is_left_alone_is_not_missing(world: World, tables: Path) -> None:
    world.aliases = {"dev.x": 3, "dev.y": 2}
    world.publish("dev.y", 1)
    assert states() == {"dev.y": "served, not wished by an alias"}
    run("status", "--check")


@pytest.mark.parametrize("published", [True, False])
def test_what_awaits_approval_is_told_and_is_no_failure(
    world: World, tables: Path, published: bool
) -> None:
    for model in ("careful", "measured"):
        world.aliases[model] = 2
        if published:
            world.publish(model, 1)
    assert states() == {
        "careful": "version 2 awaits approval: it has no tag validation_status=approved",
        "measured": "version 2 awaits approval: its run has no metric auc",
    }
    run("status", "--check")
    world.tags = {("careful", 2): {"validation_status": "approved"}}
    assert states("careful") == {"careful": "version 2 is wished: promote it"}
    run("status", "--check", code=12)
    world.publish("careful", 2)
    run("status", "--check")


def test_a_wish_that_no_name_can_fulfil_is_told(world: World, tables: Path) -> None:
    world.aliases = {"a model": 1}
    assert list(states()) == ["a model@champion"] == list(states("a model"))
    run("status", "--check", code=12)


def test_the_tables_are_those_of_the_file_that_is_named(world: World, tables: Path) -> None:
    world.aliases = {"prod.x": 3}
    run("status", "--check", code=12)
    tables.write_text('[models."prod.*"]\nwatch = false')
    other = tables.rename(tables.with_name("other.toml"))
    tables.write_text("")
    run("status", "--check", code=12)
    run("status", "--check", "--config", str(other))


def test_a_config_that_is_not_ours_is_not_to_be_promoted(world: World) -> None:
    world.repository.put("theirs/config.pbtxt", b"\xff")
    result = run("status")
    assert "unknown: what is published cannot be read" in result.stdout
    assert "warning: " in result.stderr


def test_a_release_can_be_inspected_while_mlflow_is_down(world: World) -> None:
    world.publish("m", 1)
    world.down = {"MLflow"}
    result = run("inspect", "m")
    assert "run-1 (the registry did not answer)" in result.stdout
    assert "warning: MLflow does not answer" in result.stderr
    found = json.loads(run("inspect", "m/1", "--json").stdout)
    assert (found["run"], found["problems"]) == (None, ["MLflow does not answer"])
    assert found["intact"]


def test_a_run_that_was_deleted_is_not_a_problem(world: World) -> None:
    world.publish("m", 1)
    result = run("inspect", "m")
    assert "run-1 (no longer in the registry)" in result.stdout
    assert result.stderr == ""


def test_an_inspection_tells_what_clients_need_to_know(world: World) -> None:
    world.publish("m", 1)
    world.runs["run-1"] = Run(
        run_id="run-1",
        name="n",
        experiment="e",
        user="u",
        started="s",
        parameters={},
        metrics={},
        page="http://mlflow/#/experiments/0/runs/run-1",
    )
    shown = dict(
        line.split("  ", 1) for line in run("inspect", "m").stdout.splitlines() if "  " in line
    )
    shown = {name: text.strip() for name, text in shown.items()}
    assert shown["inputs"] == "x: FP32[?,13]"
    assert shown["outputs"] == "label: STRING[?,1]"
    assert shown["answers must agree within"] == "0.25 + 0.5 * |expected|"
    assert "up to 8" in shown["configuration"]
    page = "http://mlflow/#/experiments/0/runs/run-1/artifacts/tritonpipe/m-1/report.html"
    assert shown["report"] == page
    found = json.loads(run("inspect", "m", "--json").stdout)
    assert found["inputs"][0]["name"] == "x"
    assert found["report"] == page


def test_an_inspection_fits_a_screen_however_long_the_history_is(world: World) -> None:
    world.publish("m", 1)
    for _ in range(50):
        world.journal.append("m", action="promote", event="confirmed", version=1, previous=None)
    shown = run("inspect", "m")
    assert len(shown.stdout.splitlines()) < 30
    assert "44 earlier events" in shown.stderr
    assert len(json.loads(run("inspect", "m", "--json").stdout)["events"]) == 50
