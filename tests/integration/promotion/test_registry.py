"""What a real MLflow keeps and finds."""

from __future__ import annotations

import logging

import pytest
from mlflow.tracking import MlflowClient

from pipeline.artifacts import ModelVersion, PromotionRequest
from pipeline.errors import RequestError
from pipeline.flows.claims import FAILED, TAG_PREFIX, claim_tag
from pipeline.flows.record import record_reason
from pipeline.registries.mlflow import MlflowRegistry


@pytest.fixture
def mlflow(registry: MlflowClient) -> MlflowRegistry:
    return MlflowRegistry(registry.tracking_uri)


def new_version(mlflow: MlflowRegistry, name: str, *, is_new: bool = True) -> ModelVersion:
    if is_new:
        mlflow.client.create_registered_model(name)
    made = mlflow.client.create_model_version(name, source="s3://models/x")
    number = int(made.version)
    return ModelVersion(name=name, version=number, run_id=None, source="", tags={})


@pytest.mark.parametrize("mark", ["", "'", '"', "`", "\\", "%", ";", "--", " AND ", "ü"])
def test_versions_are_found_by_name_and_tags_together(
    mlflow: MlflowRegistry, name: str, mark: str
) -> None:
    name = f"{name}{mark}x"
    first = new_version(mlflow, name)
    second = new_version(mlflow, name, is_new=False)
    other = new_version(mlflow, f"{name}-other")
    claim, state = claim_tag("fraud"), f"{TAG_PREFIX}state"
    mlflow.record(first, {claim: "{}", state: "serving"})
    mlflow.record(second, {state: "serving"})
    mlflow.record(other, {claim: ""})

    def found(tags: dict[str, str | None]) -> list[int]:
        return sorted(version.version for version in mlflow.tagged_versions(name, tags))

    assert found({}) == found({state: "serving"}) == found({state: None}) == [1, 2]
    assert found({claim: None}) == found({claim: "{}", state: None}) == [1]
    assert found({claim: "other"}) == found({claim_tag("fraud.eu"): None}) == []
    assert {v.name for v in mlflow.tagged_versions(None, {claim: None})} >= {name, other.name}


def test_a_name_that_cannot_be_searched_for_is_refused_before_anything_is_done(
    mlflow: MlflowRegistry, name: str
) -> None:
    for strange in (f"{name}'\"", f"{name}\" AND name != 'zz' AND name != \"q"):
        version = new_version(mlflow, strange)
        with pytest.raises(RequestError, match="both kinds of quotation marks"):
            mlflow.resolve(PromotionRequest(model=version.name, version=1))


def test_one_tag_that_is_refused_does_not_keep_back_the_others(
    mlflow: MlflowRegistry, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    version = new_version(mlflow, name)
    with caplog.at_level(logging.WARNING):
        mlflow.record(version, {"a": "1", "b": "x" * 1_000_000, "c" * 300: "2", "d": "3"})
    assert mlflow.tags_now(version) == {"a": "1", "d": "3"}
    refused = [r.message for r in caplog.records if r.name == "pipeline.registries.mlflow"]
    assert len(refused) == 2
    assert refused[0].startswith(f"tag b of {version} cannot be recorded: ")
    mlflow.client.delete_model_version(name, "1")
    mlflow.record(version, {"a": "1", "d": "3"})
    assert mlflow.tags_now(version) is None


def test_a_reason_of_any_characters_is_kept(mlflow: MlflowRegistry, name: str) -> None:
    version = new_version(mlflow, name)
    for reason, kept in (
        ("ValueError: \udcff \x00 \x1b[31m", "ValueError: ?  [31m"),
        ("  spaces \n around " + "x" * 600, "spaces \n around " + "x" * 482),
    ):
        record_reason(mlflow, version, FAILED, reason)
        assert (mlflow.tags_now(version) or {})[f"{TAG_PREFIX}reason"] == kept
