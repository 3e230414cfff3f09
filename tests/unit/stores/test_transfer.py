from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import obstore
import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore import exceptions
from obstore.store import MemoryStore

from pipeline.errors import ConflictError, UnavailableError
from pipeline.stores import Store
from pipeline.stores.local import LocalStore
from pipeline.stores.objects import ObjectStore
from pipeline.stores.parts import PART, part_size
from pipeline.stores.transfer import put_files

MEBIBYTE = 1 << 20
SIZES = (0, 1, 100, MEBIBYTE, MEBIBYTE + 1, PART, PART + 1, 2 * PART + 7)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for number, size in enumerate(SIZES):
        path = tmp_path / f"file-{number}"
        path.write_bytes(bytes([number]) * size)
        found[f"m/{number}/{size}"] = path
    return found


@pytest.fixture(params=["memory", "local"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return ObjectStore("memory://test", MemoryStore())
    return LocalStore(tmp_path / "root")


def test_all_files_arrive_whole_and_progress_is_told_up_to_the_end(
    store: Store, files: dict[str, Path]
) -> None:
    told: list[tuple[int, int]] = []
    put_files(store, files, transferred=lambda done, total: told.append((done, total)))
    assert {key: store.get(key) for key in files} == {k: p.read_bytes() for k, p in files.items()}
    assert {total for _, total in told} == {sum(SIZES)}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == sum(SIZES)


def test_nothing_is_nothing(store: Store) -> None:
    put_files(store, {})
    assert store.list_folder("") == []


class Failing(LocalStore):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.begun: list[str] = []
        self.lock = threading.Lock()

    def put(self, key: str, data: bytes | Path) -> None:
        with self.lock:
            self.begun.append(key)
        raise UnavailableError(key)


def test_after_an_error_no_more_files_are_begun(tmp_path: Path) -> None:
    store = Failing(tmp_path / "root")
    (tmp_path / "large").write_bytes(b"x" * PART)
    (tmp_path / "small").write_bytes(b"x")
    with pytest.raises(UnavailableError, match="large"):
        put_files(store, {"small": tmp_path / "small", "large": tmp_path / "large"})
    assert store.begun == ["large"]


@given(st.integers(min_value=0, max_value=5 << 40))
def test_parts_are_not_too_many_and_not_too_small(size: int) -> None:
    part = part_size(size)
    assert part >= PART
    assert part * 10_000 >= size
    assert part == PART or (part - 1) * 10_000 < size


def test_an_object_that_is_replaced_while_it_is_read_leaves_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = MemoryStore()
    store = ObjectStore("memory://test", backend)
    store.put("k", b"1" * (2 * PART))
    real = obstore.get

    def get(client: MemoryStore, key: str, **options: Any) -> Any:
        if options.get("options"):  # a part, after the object was seen
            obstore.put(client, key, b"2" * (2 * PART))
        return real(client, key, **options)

    monkeypatch.setattr(obstore, "get", get)
    with pytest.raises(ConflictError, match="was replaced while it was read"):
        store.download("k", tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_server_without_ranges_sends_large_objects_in_one_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore("memory://test", MemoryStore())
    data = os.urandom(PART + 1)
    store.put("k", data)
    real = obstore.get

    def get(client: MemoryStore, key: str, **options: Any) -> Any:
        if options.get("options"):
            raise exceptions.GenericError("Generic { source: NotPartial }")
        return real(client, key)

    monkeypatch.setattr(obstore, "get", get)
    store.download("k", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == data


def test_a_missing_folder_here_is_not_a_missing_object_there(tmp_path: Path) -> None:
    store = ObjectStore("memory://test", MemoryStore())
    store.put("k", b"1")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        store.download("k", tmp_path / "nowhere" / "target")
    with pytest.raises(ConflictError, match="there is no memory://test/other"):
        store.download("other", tmp_path / "target")


def test_what_cannot_be_written_here_is_said_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore("memory://test", MemoryStore())
    store.put("k", b"1")

    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        store.download("k", tmp_path / "target")
    assert not (tmp_path / "target").exists()
