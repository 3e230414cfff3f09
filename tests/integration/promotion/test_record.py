"""What MLflow says of each version stays true, whatever happens to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from pipeline.artifacts import PromotionRequest
from pipeline.checks.parity import compare
from pipeline.deployments import TritonpipeDeploymentClient
from pipeline.errors import ConfirmationError, UnavailableError
from pipeline.flows.promote import promote
from pipeline.flows.record import record_served
from pipeline.flows.retire import retire
from pipeline.flows.rollback import rollback
from pipeline.registries.mlflow import MlflowRegistry
from pipeline.settings import Settings
from pipeline.triton import PROTOCOLS

pytestmark = pytest.mark.integration


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A registered model with two versions, served under two names."""

    name: str
    registry: MlflowClient
    settings: Settings

    @property
    def challenger(self) -> str:
        return f"{self.name}-challenger"

    def promote(self, version: int, name: str | None = None, **more: Any) -> None:
        request = PromotionRequest(
            model=self.name, version=version, triton_name=name, on_behalf_of="champion"
        )
        promote(request, self.settings.model_copy(update=more))

    def tags(self, version: int) -> dict[str, str]:
        tags = self.registry.get_model_version(self.name, str(version)).tags
        return {k.removeprefix("tritonpipe."): v for k, v in tags.items()}

    def served_as(self, version: int) -> str:
        """What a reader of the tags takes it for."""
        tags = self.tags(version)
        if tags.get("state") != "serving":
            return tags.get("state", "")
        return tags["triton_model"].replace(self.name, "fraud")

    def serving(self, name: str) -> list[int]:
        """The versions that MLflow finds for a name."""
        found = self.registry.search_model_versions(f"tags.`tritonpipe.serves.{name}` LIKE '%'")
        return [int(version.version) for version in found]


@pytest.fixture
def registered(
    name: str,
    register: Callable[..., int],
    new_classifier: Callable[[int], Any],
    registry: MlflowClient,
    settings: Settings,
) -> Registered:
    for seed in (1, 2):
        register(name, new_classifier(seed))
    return Registered(name=name, registry=registry, settings=settings)


def test_one_version_under_two_names_and_what_becomes_of_it(registered: Registered) -> None:
    fraud, challenger = registered.name, registered.challenger
    registered.promote(1)
    registered.promote(1, challenger)
    assert registered.served_as(1) == "fraud, fraud-challenger"
    registered.promote(2)
    assert (registered.served_as(1), registered.served_as(2)) == ("fraud-challenger", "fraud")
    assert (registered.serving(fraud), registered.serving(challenger)) == ([2], [1])
    retire(fraud, registered.settings)
    assert (registered.served_as(1), registered.served_as(2)) == ("fraud-challenger", "retired")
    registered.promote(2)
    registered.promote(2, challenger)
    assert (registered.served_as(1), registered.served_as(2)) == (
        "superseded", "fraud, fraud-challenger",
    )  # fmt: skip
    assert registered.tags(1)["reason"] == f"{challenger} serves version 2"
    rollback(challenger, registered.settings)
    assert (registered.served_as(1), registered.served_as(2)) == ("fraud-challenger", "fraud")
    TritonpipeDeploymentClient("tritonpipe").delete_deployment(challenger)
    assert (registered.served_as(1), registered.served_as(2)) == ("retired", "fraud")


def test_a_version_that_fails_says_why_and_the_one_before_goes_on_serving(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered.promote(1)
    before = registered.tags(1)
    disagrees = iter([True] * len(PROTOCOLS))  # then the way back is gone, and proven

    def compared(subject: str, expected: Any, actual: Any, **tolerances: Any) -> Any:
        if next(disagrees, False):
            expected = {key: value + 1 for key, value in expected.items()}
        return compare(subject, expected, actual, **tolerances)

    monkeypatch.setattr("pipeline.flows.confirm.compare", compared)
    with pytest.raises(ConfirmationError):
        registered.promote(2, confirm_seconds=20.0)
    assert registered.tags(1) == before
    failed = registered.tags(2)
    assert (failed["state"], failed["since"] > before["since"]) == ("failed", True)
    assert "otherwise than the source model" in failed["reason"]
    monkeypatch.undo()
    registered.promote(2)
    assert (registered.served_as(1), registered.served_as(2)) == ("superseded", "fraud")
    assert "reason" not in registered.tags(2)


def test_a_publisher_that_is_late_leaves_what_was_proven_since(
    registered: Registered, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*arguments: Any, **named: Any) -> str:
        monkeypatch.undo()
        registered.promote(2)
        return record_served(*arguments, **named)

    monkeypatch.setattr("pipeline.flows.promote.record_served", late)
    registered.promote(1)
    assert (registered.served_as(1), registered.served_as(2)) == ("superseded", "fraud")
    assert registered.tags(1)["reason"] == f"{registered.name} serves version 2"
    assert registered.serving(registered.name) == [2]


def test_the_report_answers_what_a_data_scientist_asks(
    registered: Registered, tmp_path: Path
) -> None:
    registered.promote(1)
    registered.promote(1)  # without an export: what was compared before is told all the same
    tags = registered.tags(1)
    run = registered.registry.get_model_version(registered.name, "1").run_id
    folder = f"tritonpipe/{registered.name}-1"
    local = Path(registered.registry.download_artifacts(run, folder, str(tmp_path)))
    names = {file.name for file in local.iterdir()}
    assert names == {"report.html", "report.md", "report.json", "parity.html", "parity.json"}
    page = (local / "report.html").read_text(encoding="utf-8")
    for fact in (
        tags["since"], tags["confirmed_at"], tags["release_digest"], tags["model_digest"],
        tags["source_digest"], "for the alias champion", "comparisons agree within",
        "ms over grpc", "batches of up to 64",
    ):  # fmt: skip
        assert fact in page, fact
    assert "<svg" in (local / "parity.html").read_text(encoding="utf-8")
    document = json.loads((local / "report.json").read_text(encoding="utf-8"))
    assert document["triton_model"] == registered.name
    program = (local / "report.md").read_text(encoding="utf-8")
    program = program.partition("```python\n")[2].partition("```")[0]
    exec(compile(program, "how to ask it", "exec"), {})


def test_what_mlflow_could_not_be_told_is_made_up_for(
    registered: Registered, tritonpipe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_down(*_arguments: object) -> None:
        raise UnavailableError("MLflow does not answer")

    registered.promote(1)
    monkeypatch.setattr(MlflowRegistry, "record", is_down)
    with pytest.raises(UnavailableError, match="is served and confirmed, but not recorded"):
        registered.promote(2)
    assert (registered.served_as(1), registered.served_as(2)) == ("fraud", "")
    registered.registry.set_registered_model_alias(registered.name, "champion", "2")
    recorded = []
    for _time in "12":  # what is recorded is left alone
        done = tritonpipe("watch", "--once", "--model", registered.name)
        assert done.code == 0, done.err
        assert (registered.served_as(1), registered.served_as(2)) == ("superseded", "fraud")
        recorded.append(registered.tags(2))
    assert recorded[0] == recorded[1]
    assert recorded[0]["alias"] == "champion"
    with pytest.raises(UnavailableError):
        retire(registered.name, registered.settings)
    monkeypatch.undo()
    assert registered.served_as(2) == "fraud"
    assert tritonpipe("retire", registered.name).code == 0
    assert registered.served_as(2) == "retired"
    assert tritonpipe("retire", registered.name).code == 3


def test_the_loop_serves_two_aliases_and_swaps_them_at_once(
    registered: Registered, tritonpipe: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "tritonpipe.toml"
    file.write_text(
        f'[models."{registered.name}"]\n'
        f'serve = {{ champion = "{registered.name}", challenger = "{registered.challenger}" }}\n'
    )

    def wish(champion: int, challenger: int) -> tuple[str, str]:
        for alias, version in (("champion", champion), ("challenger", challenger)):
            registered.registry.set_registered_model_alias(registered.name, alias, version)
        done = tritonpipe("watch", "--once", "--model", registered.name, "--config", file)
        assert done.code == 0, done.err
        return registered.served_as(1), registered.served_as(2)

    assert wish(champion=1, challenger=1) == ("fraud, fraud-challenger", "")
    assert registered.tags(1)["alias"] == "champion, challenger"
    assert wish(champion=1, challenger=2) == ("fraud", "fraud-challenger")
    assert wish(champion=2, challenger=1) == ("fraud-challenger", "fraud")
    assert [registered.tags(v)["alias"] for v in (1, 2)] == ["challenger", "champion"]
    assert wish(champion=2, challenger=2) == ("superseded", "fraud, fraud-challenger")
