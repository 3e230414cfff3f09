"""A Triton in explicit mode comes to serve what is mirrored, whichever side was restarted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.errors import RefusedError, SettingsError, UnavailableError
from pipeline.mirror.admin import TritonAdmin, admin_key_from_file
from pipeline.mirror.control import Controller
from pipeline.mirror.records import ModelRecord, VersionRecord
from pipeline.mirror.status import MirrorStatus, ModelStatus


class FakeTriton:
    """Serves what was last loaded; loads what the mirror holds."""

    def __init__(self, records: dict[str, ModelRecord]) -> None:
        self.records = records
        self.served: dict[str, tuple[int, ...]] = {}
        self.broken: set[int] = set()
        self.is_up = True
        self.loads: list[str] = []

    def index(self) -> Mapping[str, Mapping[int, str]]:
        self._require_up()
        return {m: dict.fromkeys(v, "READY") for m, v in self.served.items()}

    def load(self, model: str) -> None:
        self._require_up()
        self.loads.append(model)
        named = self.records[model].named
        if self.broken & set(named):
            raise RefusedError("load failed")
        self.served[model] = named

    def unload(self, model: str) -> None:
        self._require_up()
        del self.served[model]

    def _require_up(self) -> None:
        if not self.is_up:
            raise UnavailableError("Triton does not answer")


def record_of(*versions: int, mtime_ns: int = 1) -> ModelRecord:
    found = {v: VersionRecord(manifest_sha256=f"m{v}", files={}) for v in versions}
    return ModelRecord(named=versions, versions=found, newest_mtime_ns=mtime_ns)


@pytest.fixture
def records() -> dict[str, ModelRecord]:
    return {"a": record_of(1), "b": record_of(1)}


@pytest.fixture
def triton(records: dict[str, ModelRecord]) -> FakeTriton:
    return FakeTriton(records)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def controller(triton: FakeTriton, records: dict[str, ModelRecord], told: list[str]) -> Controller:
    return Controller(triton, lambda: records, told.append, spawn=lambda job: job())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = 0.0

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("pipeline.mirror.control.time.monotonic", lambda: now)
    return advance


def test_what_is_mirrored_is_loaded_once(controller: Controller, triton: FakeTriton) -> None:
    controller.step()
    controller.step()
    assert triton.served == {"a": (1,), "b": (1,)}
    assert triton.loads == ["a", "b"]


def test_only_what_changed_is_loaded_again(
    controller: Controller, triton: FakeTriton, records: dict[str, ModelRecord]
) -> None:
    controller.step()
    records["a"] = record_of(2)
    controller.step()
    records["b"] = record_of(1, mtime_ns=2)  # another config of the same version
    controller.step()
    controller.step()
    assert triton.served == {"a": (2,), "b": (1,)}
    assert triton.loads == ["a", "b", "a", "b"]


def test_what_is_not_mirrored_is_unloaded(
    controller: Controller, triton: FakeTriton, records: dict[str, ModelRecord]
) -> None:
    triton.served["stranger"] = (1,)
    controller.step()
    del records["b"]
    controller.step()
    assert triton.served == {"a": (1,)}


def test_a_restarted_triton_is_filled_again(controller: Controller, triton: FakeTriton) -> None:
    controller.step()
    triton.is_up = False
    controller.step()
    triton.is_up, triton.served = True, {"a": (1,)}
    controller.step()
    assert triton.served == {"a": (1,), "b": (1,)}
    assert triton.loads == ["a", "b", "b"]


def test_a_failed_load_is_tried_again_later_and_others_go_on(
    controller: Controller,
    triton: FakeTriton,
    records: dict[str, ModelRecord],
    told: list[str],
    clock: Callable[[float], None],
) -> None:
    controller.step()
    records["a"] = record_of(2)
    triton.broken = {2}
    triton.loads.clear()
    waits = []
    for second in range(200):
        before = len(triton.loads)
        controller.step()
        if len(triton.loads) > before:
            waits.append(second)
        clock(1)
    assert [after - first for first, after in pairwise(waits)] == [
        1, 2, 4, 8, 16, 32, 60, 60,
    ]  # fmt: skip
    assert triton.served == {"a": (1,), "b": (1,)}
    assert [text for text in told if "not loaded" in text] == [
        "a: not loaded by Triton: load failed"
    ]
    models = (ModelStatus(name="a", serving=(2,), versions=(1, 2)),)
    status = controller.described(status_with(models))
    assert status.models[0].reason == "load"
    assert status.loads == {"loaded": 2, "failed": len(waits)}
    records["a"] = record_of(3)
    controller.step()
    assert triton.served == {"a": (3,), "b": (1,)}
    assert controller.described(status_with(models)).models[0].reason == ""


def test_a_triton_that_is_down_is_told_of_once(
    controller: Controller, triton: FakeTriton, told: list[str]
) -> None:
    triton.is_up = False
    controller.step()
    controller.step()
    assert told == ["Triton does not answer"]
    assert controller.described(status_with(())).problem == "Triton does not answer"
    triton.is_up = True
    controller.step()
    assert "Triton answers again" in told
    assert controller.described(status_with(())).problem == ""


def test_one_load_at_a_time_for_each_model(
    triton: FakeTriton, records: dict[str, ModelRecord], told: list[str]
) -> None:
    jobs: list[Callable[[], None]] = []
    controller = Controller(triton, lambda: records, told.append, spawn=jobs.append)
    controller.step()
    controller.step()
    assert len(jobs) == 2
    jobs[1]()
    records["b"] = record_of(2)
    controller.step()
    assert len(jobs) == 3
    assert triton.loads == ["b"]


def status_with(models: tuple[ModelStatus, ...]) -> MirrorStatus:
    return MirrorStatus(
        url="s3://m/r", repository=Path("/r"), last_success=1.0, seconds_behind=0.0, problem="",
        failures={}, requests={}, bytes=0, free_bytes=1, models=models,
    )  # fmt: skip


def test_the_admin_key_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("admin-key=s3cr3t=+/\n")
    key = admin_key_from_file(path)
    assert (key.name, key.value) == ("admin-key", "s3cr3t=+/")
    assert "s3cr3t" not in repr(key)
    for text in ("s3cr3t", "Admin=s3cr3t", "=s3cr3t", "a key=s3cr3t", "admin-key=s3cr3t\nmore", ""):
        path.write_text(text)
        with pytest.raises(SettingsError) as caught:
            admin_key_from_file(path)
        assert "s3cr3t" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1", "host:0", "host:99999", "https://h:1", "h:1/x"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(SettingsError):
        TritonAdmin(address, None)
