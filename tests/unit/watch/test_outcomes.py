"""When a wish that failed is tried again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import pytest

from pipeline.artifacts import ModelVersion
from pipeline.settings import Settings
from pipeline.watch.memory import Failure
from pipeline.watch.outcomes import (
    BUG,
    DIED,
    FIRST_RETRY_SECONDS,
    LAST_RETRY_SECONDS,
    Outcome,
    conditions_of,
    failure_after,
    fingerprint_of,
)
from pipeline.watch.wishes import Wish

WISH = Wish(model="fraud", registered_model="fraud", alias="champion", version=8)


def failures(kind: str, times: int, fingerprint: str = "f") -> list[Failure]:
    found: list[Failure] = []
    for n in range(times):
        last = found[-1] if found else None
        found.append(failure_after(last, WISH, fingerprint, Outcome(kind=kind), 1000.0 * n))
    return found


@pytest.mark.parametrize("kind", ["RefusedError", "ModelError"])
def test_what_is_decided_is_not_tried_again(kind: str) -> None:
    assert failures(kind, 1)[0].retry_at is None


@pytest.mark.parametrize("kind", ["ConfirmationError", DIED, BUG])
def test_what_may_be_the_versions_fault_is_tried_three_times(kind: str) -> None:
    assert [f.retry_at is None for f in failures(kind, 3)] == [False, False, True]


@pytest.mark.parametrize(
    "kind",
    ["UnavailableError", "ConflictError", "SettingsError", "DependencyError", "RequestError"],
)
def test_what_can_heal_is_tried_for_ever_and_ever_less_often(kind: str) -> None:
    found = failures(kind, 2000)
    pauses = [f.retry_at - f.at for f in found if f.retry_at is not None]
    assert len(pauses) == len(found)
    assert pauses[0] == FIRST_RETRY_SECONDS
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_RETRY_SECONDS


def test_another_wish_begins_anew() -> None:
    (first,) = failures("ConfirmationError", 1)
    again = failure_after(first, WISH, "another", Outcome(kind="ConfirmationError"), 0.0)
    assert again.attempts == 1


def test_every_setting_of_a_model_can_decide_and_where_the_servers_are_does_not() -> None:
    basis = conditions_of(Settings())
    for changed in (
        {"pyfunc": "on"},
        {"env": "model"},
        {"export_seconds": 5},
        {"device": "gpu"},
        {"author_tags": "none"},
    ):
        assert conditions_of(Settings.model_validate(changed)) != basis, changed
    assert conditions_of(Settings(triton_http="elsewhere:1", repository="s3://b/r")) == basis


class TestFingerprint:
    TAGS: ClassVar = {"tritonpipe.relative_tolerance": "0.1"}
    MODEL_TAGS: ClassVar = {"tritonpipe.instances": "2"}

    def of(
        self,
        tags: Mapping[str, str] = TAGS,
        model_tags: Mapping[str, str] = MODEL_TAGS,
        wish: Wish = WISH,
        tools: str = "tools 1",
    ) -> str:
        version = ModelVersion(
            name=wish.registered_model,
            version=wish.version,
            run_id=None,
            source="",
            tags=tags,
            model_tags=model_tags,
        )
        return fingerprint_of(wish, version, tools)

    def test_what_we_record_and_what_is_not_ours_does_not_count(self) -> None:
        ours = {"tritonpipe.state": "refused", "tritonpipe.reason": "it disagrees"}
        others = {"owner": "eve"}
        assert self.of({**self.TAGS, **ours, **others}, self.MODEL_TAGS | others) == self.of()

    def test_the_authors_tags_count_of_the_version_and_of_its_registered_model(self) -> None:
        found = {
            self.of(),
            self.of({"tritonpipe.relative_tolerance": "0.2"}),
            self.of({**self.TAGS, "tritonpipe.retry": "please"}),
            self.of(model_tags={"tritonpipe.instances": "3"}),
            self.of(model_tags={}),
            self.of(self.MODEL_TAGS, self.TAGS),
        }
        assert len(found) == 6

    def test_version_and_tools_count(self) -> None:
        other = Wish(model="fraud", registered_model="fraud", alias="champion", version=9)
        assert len({self.of(), self.of(wish=other), self.of(tools="tools 2")}) == 3
