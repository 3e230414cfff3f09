"""Laws of garbage collection: what is needed survives every order of events and every fault."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace

import pytest

from pipeline.errors import ConflictError, RequestError, TritonpipeError, UnavailableError
from pipeline.flows import garbage
from pipeline.flows.garbage import Collector
from pipeline.flows.journal import COLLECTED, ROLLBACK
from pipeline.flows.progress import silent
from pipeline.flows.publish import damage, read_state
from pipeline.flows.release import reusable_release
from pipeline.flows.retention import ModelGarbage
from pipeline.flows.rollback import _plan
from pipeline.testing.simulated import Fault, Killed, SimulatedStore, World
from pipeline.testing.simulated_repository import MODEL, SimulatedRepository
from pipeline.triton import VersionState

STEPS = 58
"""More than the collection of two versions has; the last ones break nothing."""


@pytest.fixture
def scene(
    world: World, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> SimulatedRepository:
    monkeypatch.setattr(garbage, "time", world)
    whole_delete = store.delete

    def delete_one_by_one(keys: list[str]) -> None:
        for key in keys:
            whole_delete([key])

    monkeypatch.setattr(store, "delete", delete_one_by_one)
    return SimulatedRepository(world, store)


def collect(
    scene: SimulatedRepository, *models: str, keep: int = 1, dry_run: bool = False
) -> list[int]:
    """The versions that were collected."""
    found = report(scene, *models, keep=keep, dry_run=dry_run)
    assert [f.problem for f in found] == [""] * len(found)
    return [g.version for f in found for g in f.garbage]


def report(
    scene: SimulatedRepository, *models: str, keep: int = 1, dry_run: bool = False
) -> tuple[ModelGarbage, ...]:
    return collector(scene, keep).collect(models, dry_run=dry_run)


def collector(scene: SimulatedRepository, keep: int = 1) -> Collector:
    return Collector(
        repository=scene.repository,
        registry=scene.servers.registry,
        keep=keep,
        lock_seconds=0,
        progress=silent,
    )


def intact(scene: SimulatedRepository, version: int) -> bool:
    return not damage(scene.store, scene.registered[version][0].manifest)


def collected_events(scene: SimulatedRepository) -> list[int]:
    return [e.version for e in scene.entries if e.event == COLLECTED]


def test_the_last_proven_the_served_and_the_rollback_target_are_kept(
    scene: SimulatedRepository,
) -> None:
    scene.publish(1, 2, 3, 4, 5)
    scene.serve(1, 2, 3, 4, 5)
    assert collect(scene, keep=3) == [1, 2]
    assert collect(scene, keep=1) == [3]
    assert scene.folders() == {4, 5}
    scene.serve(4, action=ROLLBACK)
    assert collect(scene, keep=1) == [5]


def test_after_a_rollback_its_own_target_is_kept(scene: SimulatedRepository) -> None:
    scene.publish(1, 2, 3, 4)
    scene.serve(1, 2, 3, 4)
    scene.serve(3, action=ROLLBACK)
    assert collect(scene, keep=1) == [1, 4]
    assert _plan(scene.servers, MODEL, None)[0].version == 2


@pytest.mark.parametrize("alias", ["champion", "challenger"])
def test_a_version_that_any_alias_wishes_is_kept(scene: SimulatedRepository, alias: str) -> None:
    scene.publish(1, 2, 3, 4)
    scene.serve(1, 2, 3, 4)
    scene.aliases[alias] = 1
    assert collect(scene) == [2]
    (found,) = report(scene)
    assert found.kept[1] == (f"wished by m@{alias}",)


@pytest.mark.parametrize("state", ["READY", "LOADING", "UNLOADING", "UNAVAILABLE"])
def test_a_version_that_a_server_holds_is_kept(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    scene.publish(1, 2, 3, 4)
    scene.serve(1, 2, 3, 4)
    monkeypatch.setattr(
        scene.triton, "versions", lambda _model: {1: VersionState(state=state, reason="")}
    )
    (found,) = report(scene)
    if state == "LOADING":
        assert "has been loading" in found.problem
    assert (1 in scene.folders()) == (state != "UNAVAILABLE")


def test_what_an_open_attempt_is_about_and_would_return_to_is_kept(
    scene: SimulatedRepository,
) -> None:
    scene.publish(1, 2, 3, 4, 5)
    scene.serve(1, 2, 3)
    scene.journal.append(MODEL, action="promote", event="committing", version=5, previous=1)
    assert collect(scene) == [4]
    (found,) = report(scene)
    assert found.kept[5] == ("an attempt without an outcome is about it",)
    assert found.kept[1] == ("an attempt without an outcome would return to it",)


@pytest.mark.parametrize("step", range(14, 24, 3))
def test_what_a_rollback_returns_to_is_kept_also_for_the_case_that_an_attempt_fails(
    scene: SimulatedRepository, step: int
) -> None:
    scene.publish(1, 2, 3, 4)
    scene.serve(1, 2, 3)
    scene.break_serving(4, step, Fault.KILL)
    assert scene.entries[-1].event == "committing"
    collect(scene)
    scene.serve(3, action=ROLLBACK)
    assert _plan(scene.servers, MODEL, None)[0].version == 2
    assert intact(scene, 2)


def test_a_version_that_an_ensemble_names_is_kept(scene: SimulatedRepository) -> None:
    scene.publish(1, 2, 3)
    scene.serve(1, 2, 3)
    config = (
        "version_policy { specific { versions: 1 } } ensemble_scheduling { "
        'step { model_name: "m" model_version: 1 } step { model_name: "m" model_version: -1 } }'
    )
    scene.store.put("both/config.pbtxt", config.encode())
    assert collect(scene, MODEL) == []
    release, golden = scene.registered[3]
    manifest = replace(release.manifest, model="both", version=1)
    scene.journal.keep(replace(release, manifest=manifest, config=config), golden)
    scene.store.put("both/config.pbtxt", config.replace("version: 1", "version: 3").encode())
    assert collect(scene, MODEL) == [], "a recorded release of the ensemble could be served again"
    scene.store.delete(["both/config.pbtxt"])
    scene.records.delete(["both/releases/1/release.json"])
    assert collect(scene, MODEL) == [1]


def test_leftovers_are_collected_and_a_model_of_leftovers_vanishes_whole(
    scene: SimulatedRepository,
) -> None:
    scene.publish(1, works=False)
    scene.store.put("other/3/model.onnx", b"somebody is just uploading this")
    with contextlib.suppress(TritonpipeError):
        scene.serve(1)
    scene.publish(2)
    scene.store.put("m/9/half", b"no manifest, no record")
    assert collect(scene) == [2, 9]
    assert set(scene.store.snapshot()) == {".tritonpipe", "other/3/model.onnx"}
    assert collect(scene, "other") == [3], "asked for by name"
    assert set(scene.store.snapshot()) == {".tritonpipe"}


def test_what_is_not_ours_is_left_alone_and_does_not_hold_up_the_others(
    scene: SimulatedRepository,
) -> None:
    scene.publish(1, 2, 3)
    scene.serve(1, 2, 3)
    configs = {"any": b'name: "any"', "binary": b"\xff", "damaged": b"version_policy {"}
    configs["theirs"] = b"version_policy { specific { versions: 2 } }"
    for name, config in configs.items():
        scene.store.put(f"{name}/1/model.onnx", b"x")
        scene.store.put(f"{name}/2/model.onnx", b"x")
        scene.store.put(f"{name}/config.pbtxt", config)
    found = {f.model: f for f in report(scene)}
    assert {name for name, f in found.items() if f.problem} == set(configs)
    assert [g.version for g in found[MODEL].garbage] == [1]
    assert len([k for k in scene.store.snapshot() if k.endswith("model.onnx")]) == 2 * 4 + 2


def test_a_dry_run_tells_the_same_and_removes_nothing(scene: SimulatedRepository) -> None:
    scene.publish(1, 2, 3, 4)
    scene.serve(1, 2, 3, 4)
    before, told = scene.store.snapshot(), report(scene, dry_run=True)
    assert (scene.store.snapshot(), collected_events(scene)) == (before, [])
    assert report(scene) == told


def test_a_registry_or_server_that_does_not_answer_removes_nothing(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish(1, 2, 3)
    scene.serve(1, 2, 3)
    before = scene.store.snapshot()

    def silent_server(*_arguments: object) -> None:
        raise UnavailableError("no answer")

    for source, method in ((scene, "registered_models"), (scene.triton, "versions")):
        with monkeypatch.context() as patch:
            patch.setattr(source, method, silent_server)
            patch.setattr(scene.triton, "require_live", silent_server)
            with pytest.raises(UnavailableError):
                collect(scene)
        assert scene.store.snapshot() == before


def test_a_server_with_a_closed_index_is_asked_version_by_version(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish(1, 2, 3, 4)
    scene.serve(1, 2, 3, 4)

    def closed(_model: str) -> None:
        raise UnavailableError("403")

    monkeypatch.setattr(scene.triton, "versions", closed)
    monkeypatch.setattr(scene.triton, "is_ready", lambda _model, version: version == 2)
    assert collect(scene) == [1]


def test_a_damaged_journal_removes_nothing(scene: SimulatedRepository) -> None:
    scene.publish(1, 2, 3)
    scene.serve(1, 2, 3)
    scene.records.put("m/journal/00000001.json", b"{")
    (found,) = report(scene)
    assert "journal of m is damaged" in found.problem
    assert scene.folders() == {1, 2, 3}


@pytest.mark.parametrize(
    ("step", "fault"),
    # The other faults differ from a kill in what is cleaned up, which is little: every fifth step.
    [(n, f) for n in range(STEPS) for f in Fault if f is Fault.KILL or n % 5 == len(f.name) % 5],
)
def test_whatever_breaks_nothing_needed_is_lost_and_the_next_run_finishes(
    scene: SimulatedRepository, step: int, fault: Fault
) -> None:
    scene.publish(1, 2, 3, 4, 5)
    scene.serve(1, 2, 3, 4)
    scene.aliases["champion"] = 1
    scene.world.break_at(step, fault)
    with contextlib.suppress(TritonpipeError, KeyboardInterrupt, Killed):
        collect(scene)
    scene.world.break_at(0, None)
    assert (intact(scene, 1), intact(scene, 3), intact(scene, 4)) == (True, True, True)
    for version in (2, 5):
        if version in scene.folders() and not intact(scene, version):
            assert version in collected_events(scene), "half-deleted, and nobody knows why"
            assert f"m/{version}/manifest.json" not in scene.store.snapshot()
    assert _plan(scene.servers, MODEL, None)[0].version == 3
    collect(scene)
    assert scene.folders() == {1, 3, 4}
    assert sorted(collected_events(scene)) == [2, 5], "each is written down once"
    assert collect(scene) == []
    assert scene.served == 4


def test_the_broken_steps_reach_beyond_the_last_one(scene: SimulatedRepository) -> None:
    scene.publish(1, 2, 3, 4, 5)
    scene.serve(1, 2, 3, 4)
    scene.world.break_at(0, None)
    collect(scene)
    assert STEPS - 10 < scene.world.steps < STEPS


@pytest.mark.parametrize("step", range(0, STEPS, 2))
@pytest.mark.parametrize("version", [1])
def test_a_publisher_at_any_moment_is_refused_or_keeps_what_it_serves(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch, step: int, version: int
) -> None:
    scene.publish(1, 2, 3, 4, 5)
    scene.serve(1, 2, 3, 4)
    steps = {"left": step}
    real_step = scene.world.step
    ended: list[str] = []

    def interleaved() -> None:
        real_step()
        steps["left"] -= 1
        if steps["left"] == -1:
            ended.append(promote_as_found(scene, version))

    monkeypatch.setattr(scene.world, "step", interleaved)
    report(scene)
    monkeypatch.setattr(scene.world, "step", real_step)
    assert scene.served == (version if ended == [""] else 4)
    assert intact(scene, scene.served or 0)
    target = _plan(scene.servers, MODEL, None)[0].version
    assert intact(scene, target)


def promote_as_found(scene: SimulatedRepository, version: int) -> str:
    """What a promotion does from its lock on; gives how it ended."""
    try:
        scene.serve(version)
    except TritonpipeError as error:
        return error.message
    return ""


def test_random_lives_never_lose_what_is_needed(
    world: World, store: SimulatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(garbage, "time", world)
    for seed in range(6):
        scene = SimulatedRepository(world, SimulatedStore(world))
        live(scene, random.Random(seed))


def live(scene: SimulatedRepository, chance: random.Random) -> None:
    for number in range(1, 9):
        scene.publish(number, works=chance.random() < 0.8)
        scene.break_serving(number, chance.randrange(40), chance.choice(list(Fault)))
        if chance.random() < 0.3:
            with contextlib.suppress(TritonpipeError):
                plan, _release, _golden = _plan(scene.servers, MODEL, None)
                scene.break_serving(
                    plan.version, chance.randrange(60), chance.choice(list(Fault)), ROLLBACK
                )
        if chance.random() < 0.3:
            scene.aliases[chance.choice("ab")] = chance.randint(1, number)
        if chance.random() < 0.5:
            keep = chance.randint(1, 3)
            before = promises(scene)
            scene.world.break_at(chance.randrange(60), chance.choice([*Fault, None]))
            with contextlib.suppress(TritonpipeError, KeyboardInterrupt, Killed):
                report(scene, keep=keep)
            scene.world.break_at(0, None)
            report(scene, keep=keep)
            assert promises(scene) == before
            snapshot = scene.store.snapshot()
            assert not any(f.garbage for f in report(scene, keep=keep)), "twice is once"
            assert scene.store.snapshot() == snapshot


def promises(scene: SimulatedRepository) -> dict[str, object]:
    """What a user relies on, and a collection must not change."""
    state = read_state(scene.store, MODEL)
    wished = {v: v in scene.folders() and intact(scene, v) for v in scene.aliases.values()}
    try:
        target = str(_plan(scene.servers, MODEL, None)[0].version)
    except (RequestError, ConflictError) as error:
        target = error.message.partition(";")[0]
    return {
        "served": scene.served,
        "config": state.config,
        "rollback": target,
        "wished": wished,
        "whole": state.version is None or intact(scene, state.version),
    }


def test_a_rollback_to_a_collected_release_is_refused_in_words(scene: SimulatedRepository) -> None:
    scene.publish(1, 2, 3)
    scene.serve(1, 2, 3)
    collect(scene)
    with pytest.raises(RequestError, match=r"m/1 is no longer kept: .* kept are 2, 3"):
        _plan(scene.servers, MODEL, 1)


def test_a_collected_version_can_be_promoted_again(scene: SimulatedRepository) -> None:
    scene.publish(1, 2, 3)
    scene.serve(1, 2, 3)
    collect(scene)
    assert reusable_release(scene.servers, read_state(scene.store, MODEL), 1) is None
    scene.publish(1)
    scene.serve(1)
    assert scene.served == 1
    assert reusable_release(scene.servers, read_state(scene.store, MODEL), 1) is not None
    assert collect(scene) == [2]


def test_a_collection_killed_before_it_removed_anything_makes_the_version_anew(
    scene: SimulatedRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish(1, 2, 3)
    scene.serve(1, 2, 3)

    def killed(_keys: list[str]) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(scene.store, "delete", killed)
        with pytest.raises(Killed):
            collect(scene)
    assert intact(scene, 1)
    assert reusable_release(scene.servers, read_state(scene.store, MODEL), 1) is None


def test_a_lost_lock_stops_the_collection(scene: SimulatedRepository) -> None:
    scene.publish(1, 2, 3)
    scene.serve(1, 2, 3)
    scene.locks.lost = True
    (found,) = report(scene)
    assert "lock was lost" in found.problem
    assert scene.folders() == {1, 2, 3}


def test_a_proven_release_whose_files_are_gone_is_given_up_in_the_journal(
    scene: SimulatedRepository,
) -> None:
    scene.publish(1, 2, 3)
    scene.serve(1, 2, 3)
    scene.store.delete([k for k in scene.store.snapshot() if k.startswith("m/1/")])
    (found,) = report(scene)
    assert [(g.version, g.why) for g in found.garbage] == [(1, "its files are gone")]
    assert collected_events(scene) == [1]
    assert collect(scene) == []


def test_an_unknown_model_is_an_error(scene: SimulatedRepository) -> None:
    with pytest.raises(RequestError, match="holds nothing of 'other'"):
        collect(scene, "other")
