"""What is promoted by hand goes by the same tables as what the loop promotes."""

from __future__ import annotations

from typing import Any, cast

import pytest

from pipeline.artifacts import ModelVersion, PromotionRequest
from pipeline.configuration import Bound
from pipeline.errors import RequestError
from pipeline.registries import Run
from pipeline.settings import Settings
from pipeline.watch.approval import named, require_approved
from pipeline.watch.wishes import Rule

REQUEST = PromotionRequest(model="fraud", alias="challenger")


class Registry:
    def __init__(self, tags: dict[str, str], metrics: dict[str, float]) -> None:
        self.tags, self.metrics = tags, metrics

    def resolve(self, request: PromotionRequest) -> ModelVersion:
        return ModelVersion(name=request.model, version=4, run_id="r", source="", tags=self.tags)

    def run(self, run_id: str) -> Run:
        return Run(
            run_id=run_id,
            name="",
            experiment="",
            user="",
            started="",
            parameters={},
            metrics=self.metrics,
        )


def rule(**parts: Any) -> Rule:
    return Rule(**{"serve": {"challenger": "{model}-next"}, "settings": Settings(), **parts})


def test_an_alias_is_served_under_the_name_that_it_has() -> None:
    assert named(REQUEST, rule()).triton_name == "fraud-next"
    assert named(REQUEST, rule(serve={"champion": "{model}"})) == REQUEST
    by_hand = PromotionRequest(model="fraud", alias="challenger", triton_name="mine")
    assert named(by_hand, rule()) == by_hand
    version = PromotionRequest(model="fraud", version=4)
    assert named(version, rule()) == version


def test_without_a_requirement_nobody_is_asked() -> None:
    require_approved(REQUEST, rule(), cast("Any", None))


@pytest.mark.parametrize(
    ("tags", "metrics", "lacks"),
    [
        ({"ok": "yes"}, {"auc": 0.95}, ""),
        ({}, {"auc": 0.95}, "it has no tag ok=yes"),
        ({"ok": "Yes"}, {"auc": 0.95}, "its tag ok is 'Yes', not 'yes'"),
        ({"ok": "yes"}, {"auc": 0.5}, "its metric auc is 0.5, not >= 0.9"),
        ({"ok": "yes"}, {}, "its run has no metric auc"),
    ],
)
def test_what_is_required_is_there_or_named(
    tags: dict[str, str], metrics: dict[str, float], lacks: str
) -> None:
    required = rule(requires={"ok": "yes"}, metrics={"auc": Bound(text=">= 0.9")})
    registry = cast("Any", Registry(tags, metrics))
    if not lacks:
        require_approved(REQUEST, required, lambda: registry)
        return
    with pytest.raises(RequestError, match="fraud/4 is not approved") as caught:
        require_approved(REQUEST, required, lambda: registry)
    assert lacks in caught.value.message
    assert "--unapproved" in caught.value.hint
