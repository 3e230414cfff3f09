from __future__ import annotations

from pathlib import Path

import pytest
from obstore.store import MemoryStore

from pipeline.errors import SettingsError
from pipeline.stores.objects import ObjectStore, open_store


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore("memory://test", MemoryStore())


def test_what_was_put_is_read(store: ObjectStore, tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"from a file")
    store.put("a/1", b"bytes")
    store.put("a/2", file)
    store.put("a/empty", b"")
    assert [store.get(k) for k in ("a/1", "a/2", "a/empty")] == [b"bytes", b"from a file", b""]


def test_absence_is_none_not_an_error(store: ObjectStore) -> None:
    assert store.get("nothing") is None
    assert store.head("nothing") is None
    store.delete(["nothing"])


def test_create_never_replaces(store: ObjectStore) -> None:
    assert store.create("k", b"first")
    assert not store.create("k", b"second")
    assert store.get("k") == b"first"


def test_a_folder_is_not_its_sibling_with_a_longer_name(store: ObjectStore) -> None:
    for key in ("foo/1", "foo/2/x", "foobar/1", "foo-2/1", "foo"):
        store.put(key, b"x")
    assert [o.key for o in store.list_folder("foo")] == ["foo/1", "foo/2/x"]
    assert len(store.list_folder("")) == 5


def test_listing_tells_size_and_time(store: ObjectStore) -> None:
    store.put("a/1", b"12345")
    [listed] = store.list_folder("a")
    assert (listed.size, listed) == (5, store.head("a/1"))


@pytest.mark.parametrize(
    "url",
    [
        *("models", "http://models/x", "s3://Models/x", "s3://my_bucket/x", "s3://models/a b"),
        *("s3://", "s3://models/../x", "s3://models/./x", "s3://models/a/..", "s3://models/../"),
    ],
)
def test_urls_that_triton_cannot_read_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="not a model repository"):
        open_store(url)


@pytest.mark.parametrize("url", ["s3://models", "s3://models/a..b/.c/...", "s3://models/x/"])
def test_dots_within_a_name_are_allowed(url: str) -> None:
    assert open_store(url).url == url.rstrip("/")
