"""Rounds on a repository and a registry of this test: what is started, remembered and told."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, cast

import pytest

from pipeline.artifacts import ModelVersion, PromotionRequest
from pipeline.errors import RequestError, UnavailableError
from pipeline.flows.claims import claim_tag
from pipeline.flows.journal import ROLLBACK
from pipeline.registries import RegisteredModel
from pipeline.settings import Settings
from pipeline.testing.simulated_repository import MODEL, SimulatedRepository
from pipeline.watch.difference import (
    AWAITING,
    HELD,
    KEPT,
    PENDING,
    REFUSED,
    RETRYING,
    SERVING,
    Policy,
)
from pipeline.watch.events import WARNING, Event
from pipeline.watch.memory import Failure, MemoryStore, Origin
from pipeline.watch.outcomes import INTERRUPTED, Outcome
from pipeline.watch.rounds import Plan, Rounds, is_at_rest
from pipeline.watch.tasks import Task
from pipeline.watch.wishes import Rule, Wish


class Registry:
    """Aliases and tags, set by the tests."""

    def __init__(self) -> None:
        self.aliases: dict[str, dict[str, int]] = {}
        self.tags: dict[str, str] = {}
        self.model_tags: dict[str, str] = {}
        self.claims: dict[str, tuple[str, int]] = {}
        self.is_down = False
        self.asked: list[str] = []

    def registered_models(self) -> list[RegisteredModel]:
        self.asked.append("registered_models")
        if self.is_down:
            raise UnavailableError("MLflow does not answer")
        return [RegisteredModel(name=n, aliases=dict(a)) for n, a in self.aliases.items()]

    def resolve(self, request: PromotionRequest) -> ModelVersion:
        self.asked.append("resolve")
        if request.version == 404:
            raise RequestError("no such version")
        if request.version == 503:
            raise UnavailableError("MLflow does not answer")
        return ModelVersion(
            name=request.model,
            version=request.version or 0,
            run_id=None,
            source="",
            tags=dict(self.tags),
            model_tags=dict(self.model_tags),
        )

    def tags_now(self, _version: ModelVersion) -> dict[str, str]:
        return dict(self.tags)

    def record(self, _version: ModelVersion, tags: dict[str, str]) -> None:
        self.tags |= tags

    def tagged_versions(self, name: None, tags: Mapping[str, str]) -> list[ModelVersion]:
        self.asked.append("tagged_versions")
        assert tags == {"tritonpipe.state": "serving"}
        return [
            ModelVersion(
                name=model,
                version=version,
                run_id=None,
                source="",
                tags={**tags, claim_tag(triton_name): "{}"},
            )
            for triton_name, (model, version) in self.claims.items()
        ]


class HandJob:
    """Work that the tests do and end."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.stage = "export"
        self.started = 0.0
        self.is_cancelled = False
        self.outcome: Outcome | None = None
        self.seconds: dict[str, float] = {}

    @property
    def is_exporting(self) -> bool:
        return self.task.needs_export and self.stage == "export"

    def cancel(self) -> None:
        self.is_cancelled = True
        self.outcome = Outcome(kind=INTERRUPTED)

    def poll(self) -> Outcome | None:
        return self.outcome

    def untold(self) -> list[object]:
        return []


class Hands:
    def __init__(self) -> None:
        self.jobs: list[HandJob] = []

    def start(self, task: Task) -> HandJob:
        self.jobs.append(HandJob(task))
        return self.jobs[-1]


class Stage:
    """One watcher with its surroundings."""

    def __init__(self, scene: SimulatedRepository) -> None:
        self.scene = scene
        self.registry = Registry()
        self.hands = Hands()
        self.events: list[Event] = []
        self.device: Literal["cpu", "gpu"] = "cpu"
        self.requires: dict[str, str] = {}
        self.policy = Policy()
        self.rounds = self.new_watcher()

    def new_watcher(self, exports: int = 2) -> Rounds:
        settings = Settings(device=self.device)
        rule = Rule(serve={"champion": "{model}"}, settings=settings, requires=self.requires)
        plan = Plan(
            rules=(rule,),
            only=Rule(serve={}, settings=settings),
            base=settings,
            policy=self.policy,
            exports=exports,
            name=".watch",
        )
        servers = replace(self.scene.servers, registry=cast("Any", self.registry))
        return Rounds(servers, plan, cast("Any", self.hands), self.events.append)

    def wish(self, model: str, version: int) -> None:
        self.registry.aliases[model] = {"champion": version}

    def end(self, outcome: Outcome) -> None:
        self.hands.jobs[-1].outcome = outcome

    def promote(self, version: int) -> None:
        """What the work would do, and its end."""
        self.scene.publish(version)
        self.scene.serve(version)
        self.end(Outcome(kind="promoted"))

    def states(self) -> Mapping[str, str]:
        return {s.model: s.state for s in self.rounds.step().standings}

    @property
    def under_way(self) -> dict[str, str]:
        return {model: str(job.task.wish) for model, job in self.rounds.work.jobs.items()}


@pytest.fixture
def stage(scene: SimulatedRepository) -> Stage:
    return Stage(scene)


REFUSAL = Outcome(kind="ModelError", message="it has no signature")


def test_setting_an_alias_is_enough_and_twice_does_nothing_more(stage: Stage) -> None:
    stage.wish(MODEL, 1)
    stage.rounds.step()
    assert stage.under_way == {MODEL: "m/1 (champion)"}
    stage.promote(1)
    assert stage.states() == {MODEL: SERVING}
    assert is_at_rest(stage.rounds.step(), stage.rounds.work.jobs)
    assert len(stage.hands.jobs) == 1
    stage.registry.asked.clear()
    stage.rounds.step()
    assert stage.registry.asked == ["registered_models"]
    assert [e.kind for e in stage.events] == ["started", "ended"]
    assert len({e.promotion for e in stage.events}) == 1


def test_the_newest_wish_wins_over_work_under_way(stage: Stage) -> None:
    stage.wish(MODEL, 1)
    stage.rounds.step()
    stage.wish(MODEL, 2)
    stage.rounds.step()
    assert stage.hands.jobs[0].is_cancelled
    stage.rounds.step()
    assert stage.under_way == {MODEL: "m/2 (champion)"}
    assert MemoryStore(stage.scene.records, ".watch").load().failures == {}


def test_a_refused_version_stays_refused_over_restarts_until_something_changes(
    stage: Stage,
) -> None:
    stage.wish(MODEL, 1)
    stage.rounds.step()
    stage.end(REFUSAL)
    assert stage.states() == {MODEL: REFUSED}
    stage.rounds = stage.new_watcher()
    assert stage.states() == {MODEL: REFUSED}
    assert len(stage.hands.jobs) == 1

    stage.registry.tags["tritonpipe.retry"] = "1"
    stage.rounds = stage.new_watcher()  # which knows no tags from before
    stage.rounds.step()
    assert len(stage.hands.jobs) == 2
    stage.end(REFUSAL)
    assert stage.states() == {MODEL: REFUSED}

    stage.device = "gpu"
    stage.rounds = stage.new_watcher()
    stage.rounds.step()
    assert len(stage.hands.jobs) == 3
    stage.end(REFUSAL)
    assert stage.states() == {MODEL: REFUSED}

    stage.registry.model_tags["tritonpipe.max_batch_size"] = "8"
    stage.rounds.step(is_notified=True)
    assert len(stage.hands.jobs) == 4


def test_a_version_waits_for_its_approval_and_is_served_once_it_has_it(stage: Stage) -> None:
    stage.requires = {"validation_status": "approved"}
    stage.rounds = stage.new_watcher()
    stage.wish(MODEL, 1)
    assert stage.states() == {MODEL: AWAITING}
    stage.registry.tags["validation_status"] = "approved"
    stage.rounds.step(is_notified=True)
    assert stage.under_way == {MODEL: "m/1 (champion)"}
    stage.promote(1)
    stage.registry.tags.clear()  # what is served is not asked for it again
    stage.rounds.step(is_notified=True)
    assert stage.states() == {MODEL: SERVING}


def test_a_refusal_is_told_once_and_forgotten_with_its_wish(stage: Stage) -> None:
    stage.wish(MODEL, 1)
    stage.rounds.step()
    stage.end(REFUSAL)
    for _round in range(3):
        stage.rounds.step()
    assert [e.outcome for e in stage.events if e.kind == "standing"] == [REFUSED]
    stage.wish(MODEL, 2)
    stage.rounds.step()
    stage.promote(2)
    assert stage.states() == {MODEL: SERVING}
    assert MemoryStore(stage.scene.records, ".watch").load().failures == {}


def test_what_can_heal_is_tried_again(stage: Stage) -> None:
    stage.wish(MODEL, 404)
    stage.rounds.step()
    stage.end(Outcome(kind="RequestError", message="no such version"))
    found = stage.rounds.step()
    assert found.wake_at is not None
    assert found.promote == ()


def test_somebody_elses_rollback_is_not_undone(stage: Stage) -> None:
    stage.scene.publish(1, 2)
    stage.scene.serve(1, 2)
    stage.scene.serve(1, action=ROLLBACK)
    stage.wish(MODEL, 2)
    assert stage.states() == {MODEL: HELD}
    assert stage.hands.jobs == []


def test_a_registry_that_is_down_stops_nothing_that_is_under_way(stage: Stage) -> None:
    stage.wish(MODEL, 1)
    stage.rounds.step()
    stage.registry.is_down = True
    with pytest.raises(UnavailableError):
        stage.rounds.step()
    assert not stage.hands.jobs[0].is_cancelled
    stage.promote(1)
    with pytest.raises(UnavailableError):
        stage.rounds.step()
    stage.registry.is_down = False
    assert stage.states() == {MODEL: SERVING}


def test_a_source_that_fails_for_one_model_fails_the_round_before_anything_is_started(
    stage: Stage,
) -> None:
    stage.wish("a", 1)
    stage.wish("b", 503)
    for _round in range(2):
        with pytest.raises(UnavailableError):
            stage.rounds.step()
    assert stage.hands.jobs == []
    stage.wish("b", 1)
    stage.rounds.step()
    assert set(stage.under_way) == {"a", "b"}


def test_what_cannot_be_remembered_is_not_started(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.wish(MODEL, 1)
    stage.rounds.step()
    stage.end(REFUSAL)
    stage.wish("other", 1)
    monkeypatch.setattr(stage.scene.records, "put", _full)
    with pytest.raises(UnavailableError):
        stage.rounds.step()
    assert len(stage.hands.jobs) == 1
    monkeypatch.undo()
    assert stage.states() == {MODEL: REFUSED, "other": PENDING}


def _full(_key: str, _data: bytes) -> None:
    raise UnavailableError("the store is full")


def test_what_is_neither_wished_nor_published_any_more_is_forgotten(stage: Stage) -> None:
    stage.wish(MODEL, 1)
    stage.rounds.step()
    stage.promote(1)
    stage.rounds.step()
    stage.registry.aliases.clear()
    assert stage.states() == {MODEL: KEPT}
    stage.scene.store.delete([f"{MODEL}/config.pbtxt"])  # somebody has taken it away
    stage.rounds.step()
    assert stage.states() == {}
    assert MemoryStore(stage.scene.records, ".watch").load().origins == {}


def test_what_is_kept_does_not_grow_with_the_wishes_that_come_and_go(stage: Stage) -> None:
    outcomes = [REFUSAL, Outcome(kind="promoted"), Outcome(kind="UnavailableError"), None]
    kept = []
    for number in range(1, 25):
        stage.registry.aliases = {f"m{number}": {"champion": number}, MODEL: {"champion": number}}
        stage.rounds.step()
        for job in stage.hands.jobs:
            job.outcome = job.outcome or outcomes[number % len(outcomes)]
        stage.rounds.step()
        stage.hands.jobs.clear()
        if number % 12 == 0:
            gc.collect()
            # By type, since isinstance() also asks lazy objects of libraries what they are.
            kept.append(sum(type(each) in {Wish, Failure, Origin} for each in gc.get_objects()))
    assert kept[0] == kept[1]


def test_exports_are_few_at_once_and_recorded_releases_do_not_wait_for_them(stage: Stage) -> None:
    stage.rounds = stage.new_watcher(exports=1)
    stage.scene.publish(1, 2)
    stage.scene.serve(1, 2)
    for name in "abc":
        stage.wish(name, 1)
    stage.wish(MODEL, 1)  # of which the release is recorded
    stage.rounds.step()
    assert set(stage.under_way) == {"a", MODEL}
    stage.end(Outcome(kind="promoted"))
    stage.hands.jobs[0].outcome = REFUSAL
    stage.rounds.step()
    assert set(stage.under_way) == {"b", MODEL}
    stage.rounds.work.jobs["b"].stage = "load"
    stage.rounds.step()
    assert set(stage.under_way) == {"b", "c", MODEL}


def test_a_removed_alias_takes_away_only_what_it_brought(stage: Stage) -> None:
    stage.policy = Policy(unload=True, unload_after_seconds=0.0)
    stage.rounds = stage.new_watcher()
    stage.wish(MODEL, 1)
    stage.wish("other", 404)
    stage.rounds.step()
    stage.scene.publish(1)
    stage.scene.serve(1)
    stage.hands.jobs[0].outcome = Outcome(kind="promoted")
    stage.rounds.step()
    stage.registry.aliases[MODEL] = {}
    stage.registry.aliases["other"] = {}
    stage.rounds.step()
    assert [(j.task.model, j.task.wish) for j in stage.hands.jobs if j.task.wish is None] == [
        (MODEL, None)
    ]
    stage.end(Outcome(kind="ConflictError", message="it is a step of an ensemble"))
    for _round in range(3):
        stage.rounds.step()
    assert len([j for j in stage.hands.jobs if j.task.wish is None]) == 1, "not at once again"
    stage.rounds.work.jobs.clear()
    again = MemoryStore(stage.scene.records, ".watch")
    again.keep(replace(again.load(), failures={}))
    stage.rounds = stage.new_watcher()
    stage.rounds.step()
    stage.end(Outcome(kind="retired"))
    stage.rounds.step()
    assert MemoryStore(stage.scene.records, ".watch").load().origins == {}


def _refused(_version: ModelVersion, _tags: Mapping[str, str]) -> None:
    raise UnavailableError("a string cannot contain NUL")


class TestRecord:
    """What is served, and the registry was not told."""

    def test_a_watcher_that_was_killed_before_the_record_makes_up_for_it(
        self, stage: Stage
    ) -> None:
        stage.scene.publish(1)
        stage.scene.serve(1)
        stage.wish(MODEL, 1)
        stage.rounds.step()
        assert stage.under_way == {MODEL: "m/1 (champion)"}
        stage.end(Outcome(kind="unchanged"))
        assert stage.states() == {MODEL: SERVING}

    def test_and_one_that_could_not_reach_the_registry_tries_again_in_time(
        self, stage: Stage
    ) -> None:
        stage.wish(MODEL, 1)
        stage.rounds.step()
        stage.scene.publish(1)
        stage.scene.serve(1)
        stage.end(Outcome(kind="UnavailableError", message="served, but not recorded"))
        assert stage.states() == {MODEL: RETRYING}
        assert stage.states() == {MODEL: RETRYING}
        stage.registry.claims[MODEL] = (MODEL, 1)
        stage.rounds.step(is_notified=True)
        assert stage.states() == {MODEL: SERVING}

    @pytest.mark.parametrize("claim", [None, (MODEL, 2), ("another", 1)])
    def test_only_the_claim_of_this_version_counts(
        self, stage: Stage, claim: tuple[str, int] | None
    ) -> None:
        stage.scene.publish(1)
        stage.scene.serve(1)
        stage.wish(MODEL, 1)
        stage.registry.claims = {"another": (MODEL, 1)} | ({MODEL: claim} if claim else {})
        stage.rounds.step()
        assert len(stage.hands.jobs) == 1

    def test_what_is_not_tried_again_says_so_where_its_author_looks(self, stage: Stage) -> None:
        stage.wish(MODEL, 1)
        stage.rounds.step()
        stage.end(REFUSAL)
        assert stage.states() == {MODEL: REFUSED}
        assert stage.registry.tags["tritonpipe.reason"] == REFUSAL.message

    def test_a_registry_that_does_not_take_the_reason_of_one_fails_no_round(
        self, stage: Stage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stage.wish(MODEL, 1)
        stage.rounds.step()
        stage.end(REFUSAL)
        monkeypatch.setattr(stage.registry, "record", _refused)
        for _round in range(3):
            assert stage.states() == {MODEL: REFUSED}
        stage.wish("other", 1)
        stage.rounds.step()
        assert set(stage.under_way) == {"other"}
        told = [event for event in stage.events if event.kind == WARNING]
        assert [event.model for event in told] == [MODEL]

    def test_it_is_looked_up_once_for_all_that_are_served(self, stage: Stage) -> None:
        stage.scene.publish(1)
        stage.scene.serve(1)
        stage.wish(MODEL, 1)
        stage.registry.claims[MODEL] = (MODEL, 1)
        for _round in range(5):
            assert stage.states() == {MODEL: SERVING}
        assert stage.registry.asked.count("tagged_versions") == 1
