"""When a wish that failed is tried again."""

from __future__ import annotations

import pytest

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
    for changed in ({"pyfunc": "on"}, {"env": "model"}, {"export_seconds": 5}, {"device": "gpu"}):
        assert conditions_of(Settings.model_validate(changed)) != basis, changed
    assert conditions_of(Settings(triton_http="elsewhere:1", repository="s3://b/r")) == basis


class TestFingerprint:
    BASIS = fingerprint_of(WISH, {"tritonpipe.relative_tolerance": "0.1"}, "tools 1")

    def test_what_we_record_and_what_is_not_ours_does_not_count(self) -> None:
        tags = {
            "tritonpipe.relative_tolerance": "0.1",
            "tritonpipe.state": "refused",
            "tritonpipe.reason": "it disagrees",
            "owner": "eve",
        }
        assert fingerprint_of(WISH, tags, "tools 1") == self.BASIS

    def test_the_authors_tags_count(self) -> None:
        assert fingerprint_of(WISH, {"tritonpipe.relative_tolerance": "0.2"}, "tools 1") != (
            self.BASIS
        )
        tags = {"tritonpipe.relative_tolerance": "0.1", "tritonpipe.retry": "please"}
        assert fingerprint_of(WISH, tags, "tools 1") != self.BASIS

    def test_version_and_tools_count(self) -> None:
        tags = {"tritonpipe.relative_tolerance": "0.1"}
        other = Wish(model="fraud", registered_model="fraud", alias="champion", version=9)
        assert fingerprint_of(other, tags, "tools 1") != self.BASIS
        assert fingerprint_of(WISH, tags, "tools 2") != self.BASIS
