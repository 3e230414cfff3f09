"""What a watcher reads of the repository, and how rarely."""

from __future__ import annotations

import pytest

from pipeline.flows.journal import COMMITTING, PROMOTE, ROLLBACK, Journal
from pipeline.testing.simulated_repository import MODEL, SimulatedRepository
from pipeline.watch.published import PublishedModels


@pytest.fixture
def reader(scene: SimulatedRepository) -> PublishedModels:
    return PublishedModels(scene.store, scene.journal)


def test_what_is_uploaded_is_not_published(
    scene: SimulatedRepository, reader: PublishedModels
) -> None:
    scene.publish(1)
    assert reader.read() == {}


def test_what_is_served_is_published_and_proven(
    scene: SimulatedRepository, reader: PublishedModels
) -> None:
    scene.publish(1, 2)
    scene.serve(1, 2)
    found = reader.read()[MODEL]
    assert (found.version, found.registered_model, found.is_proven) == (2, MODEL, True)
    assert found.taken_back == {}


def test_every_commit_is_seen(scene: SimulatedRepository, reader: PublishedModels) -> None:
    scene.publish(1, 2)
    for version in (1, 2, 1, 2):
        scene.serve(version)
        assert reader.read()[MODEL].version == version


def test_a_rollback_tells_from_what_and_by_whom(
    scene: SimulatedRepository, reader: PublishedModels
) -> None:
    scene.publish(1, 2)
    scene.serve(1, 2)
    scene.serve(1, action=ROLLBACK)
    found = reader.read()[MODEL]
    assert (found.version, set(found.taken_back)) == (1, {2})
    assert "@" in found.taken_back[2]
    scene.serve(2)
    assert reader.read()[MODEL].taken_back == {}


def test_a_rollback_under_way_is_one(scene: SimulatedRepository, reader: PublishedModels) -> None:
    scene.publish(1, 2)
    scene.serve(1, 2)
    scene.journal.append(MODEL, action=ROLLBACK, event=COMMITTING, version=1, previous=2)
    reader.forget([MODEL])
    found = reader.read()[MODEL]
    assert (set(found.taken_back), found.is_proven) == ({2}, False)


def test_an_open_attempt_is_looked_at_again_although_its_config_stays(
    scene: SimulatedRepository, reader: PublishedModels
) -> None:
    scene.publish(1)
    scene.serve(1)
    scene.journal.append(MODEL, action=PROMOTE, event=COMMITTING, version=1, previous=None)
    assert not reader.read()[MODEL].is_proven
    scene.serve(1)
    assert reader.read()[MODEL].is_proven


def test_what_has_not_changed_is_not_read_again(
    scene: SimulatedRepository, reader: PublishedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish(1)
    scene.serve(1)
    first = reader.read()

    def fail(*_arguments: object) -> None:
        raise AssertionError("the journal is read again")

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "entries", fail)
        patch.setattr(scene.store, "read", fail)
        assert reader.read() == first
    reader.forget([MODEL])
    assert reader.read() == first


def test_what_cannot_be_read_is_told_and_is_not_proven(
    scene: SimulatedRepository, reader: PublishedModels
) -> None:
    scene.publish(1)
    scene.serve(1)
    config = scene.store.get(f"{MODEL}/config.pbtxt") or b""
    scene.store.put(f"{MODEL}/config.pbtxt", config[:-3])
    found = reader.read()[MODEL]
    assert (found.version, found.is_proven) == (None, False)
    assert found.problem
    scene.store.put(f"{MODEL}/config.pbtxt", config)
    assert reader.read()[MODEL].is_proven


def test_what_is_gone_is_gone(scene: SimulatedRepository, reader: PublishedModels) -> None:
    scene.publish(1)
    scene.serve(1)
    assert reader.read()
    scene.store.delete([f"{MODEL}/config.pbtxt"])
    assert reader.read() == {}
