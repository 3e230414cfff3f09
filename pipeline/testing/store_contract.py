"""The laws of a :class:`pipeline.stores.Store`, for tests of every kind of store.

A third party's kind of store is tested by inheriting :class:`StoreContract`. Laws about conditional
writes are skipped where the store was seen not to honour them, and must be declared by the test.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.errors import ConflictError, RequestError
from pipeline.stores import Conditions, Store, StoredObject
from pipeline.stores.probe import probe_conditions

ALL_CONDITIONS = Conditions(create=True, replace=True, atomic=True)
NO_CONDITIONS = Conditions(create=False, replace=False, atomic=False)

ODD_KEYS = (
    *("odd/a b", "odd/a+b", "odd/a%20b", "odd/a%2Fb", "odd/a=b&c", "odd/a#b", "odd/a?b", "odd/*~"),
    *(
        "odd/ü",
        "odd/模型",
        "odd/.hidden",
        "odd/a..b",
        "odd/...",
        "odd/'\"",
        "odd/a:b@c,d;e",
        "odd/-",
    ),
    *("odd/{x}[y]<z>|^`", "odd/a\\b", "odd/deep/er/and/deep/er"),
)
WRONG_KEYS = ("", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a\nb", "a\0b", "x" * 1025)


class StoreContract:
    """Inherit, override ``store``, and set what differs."""

    conditions: ClassVar[Conditions] = ALL_CONDITIONS
    """What the server honours."""

    odd_keys: ClassVar[tuple[str, ...]] = ODD_KEYS
    large: ClassVar[int] = 20 * 1024 * 1024 + 1
    """Bytes of an object that the kind of store writes in several parts."""

    many: ClassVar[int] = 1001
    """Objects of a listing that needs several answers."""

    clock_step: ClassVar[float] = 1.0
    """Seconds after which ``last_modified`` has surely grown."""

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """An empty store."""
        raise NotImplementedError

    @pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5], ids=len)
    def test_what_was_put_is_read(self, store: Store, data: bytes) -> None:
        """Any bytes, in every way of reading."""
        store.put("a/k", data)
        read, head = store.read("a/k"), store.head("a/k")
        assert store.get("a/k") == data
        assert read is not None
        assert (read.data, read.stored, head) == (data, head, store.list_folder("a")[0])
        assert head is not None
        assert (head.key, head.size) == ("a/k", len(data))

    def test_files_go_in_and_out(self, store: Store, tmp_path: Path) -> None:
        """Also those that are sent in several parts; sizes around the borders of parts."""
        for size in (0, 1, self.large, 16 << 20):
            source, target = tmp_path / "source", tmp_path / "target"
            source.write_bytes(os.urandom(size))
            store.put("a/file", source)
            store.download("a/file", target)
            assert target.read_bytes() == source.read_bytes()
            [listed] = store.list_folder("a")
            assert listed.size == size

    def test_put_replaces(self, store: Store) -> None:
        """The last writer's bytes, whether they are more or fewer."""
        for data in (b"first", b"second one", b"3"):
            store.put("k", data)
            assert store.get("k") == data

    def test_absence_is_not_an_error(self, store: Store, tmp_path: Path) -> None:
        """Except to who wants a file of it; then there is none."""
        assert (store.get("no"), store.read("no/thing"), store.head("no")) == (None, None, None)
        assert store.list_folder("no") == []
        store.delete(["no", "no/thing"])
        store.delete([])
        with pytest.raises(ConflictError, match="no/thing"):
            store.download("no/thing", tmp_path / "target")
        assert not (tmp_path / "target").exists()

    def test_delete_removes_exactly_what_is_named(self, store: Store) -> None:
        """Also with absent ones among them."""
        for key in ("a/1", "a/2", "a/2b", "ab/2"):
            store.put(key, b"x")
        store.delete(["a/2", "a/none", "a/1"])
        assert [o.key for o in store.list_folder("")] == ["a/2b", "ab/2"]

    def test_a_listing_is_of_one_folder(self, store: Store) -> None:
        """Never of its sibling with a longer name; in order of key."""
        for key in ("foo/2/x", "foo/10", "foo/1", "foobar/1", "foo-2/1", "foo.txt", "fo/1"):
            store.put(key, b"x")
        assert [o.key for o in store.list_folder("foo")] == ["foo/1", "foo/10", "foo/2/x"]
        assert store.list_folder("foo/") == store.list_folder("foo")
        assert [o.key for o in store.list_folder("foo/2")] == ["foo/2/x"]
        assert len(store.list_folder("")) == 7

    def test_a_long_listing_is_complete(self, store: Store) -> None:
        """Servers give at most 1,000 keys per answer."""
        keys = [f"many/{n:05d}/x" for n in range(self.many)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda key: store.put(key, b"x"), keys))
        assert [o.key for o in store.list_folder("many")] == keys
        store.delete(keys)
        assert store.list_folder("many") == []

    def test_odd_keys_are_kept_as_they_are(self, store: Store) -> None:
        """None is encoded, decoded or mistaken for another."""
        for key in self.odd_keys:
            store.put(key, key.encode())
        assert {key: store.get(key) for key in self.odd_keys} == {
            key: key.encode() for key in self.odd_keys
        }
        assert [o.key for o in store.list_folder("odd")] == sorted(self.odd_keys)
        store.delete(list(self.odd_keys))
        assert store.list_folder("") == []

    @pytest.mark.parametrize("key", WRONG_KEYS, ids=repr)
    def test_keys_that_would_not_come_back_are_refused(self, store: Store, key: str) -> None:
        """Before anything is written."""
        for use in (
            store.get,
            store.head,
            lambda k: store.put(k, b"x"),
            lambda k: store.delete([k]),
        ):
            with pytest.raises(RequestError, match="cannot be the key"):
                use(key)
        assert store.list_folder("") == []

    def test_last_modified_does_not_go_back(self, store: Store) -> None:
        """It is of the server's clock, which is near this machine's."""
        times = []
        for number in range(4):
            store.put(f"t/{number}", b"x")
            found = store.head(f"t/{number}")
            assert found is not None
            times.append(found.last_modified.timestamp())
            time.sleep(self.clock_step * 0.4)
        assert times == sorted(times)
        assert times[-1] > times[0]
        assert abs(times[-1] - time.time()) < 60

    def test_an_etag_tells_bytes_apart(self, store: Store) -> None:
        """And stays, as long as nobody writes."""
        store.put("k", b"one")
        first = _head(store, "k")
        assert first.etag == _head(store, "k").etag != ""
        store.put("k", b"two")
        assert _head(store, "k").etag != first.etag

    def test_create_does_not_replace(self, store: Store) -> None:
        """One writer after another, whatever the server honours."""
        assert store.create("k", b"first")
        assert not store.create("k", b"second")
        assert store.get("k") == b"first"
        store.delete(["k"])
        assert store.create("k", b"third")

    def test_replace_takes_the_right_etag_only(self, store: Store) -> None:
        """Neither a stale one, nor that of an object which is gone."""
        if not self.conditions.replace:
            pytest.skip("the server ignores If-Match")
        store.put("k", b"first")
        stale = _head(store, "k").etag
        assert store.replace("k", b"second", etag=stale)
        assert not store.replace("k", b"third", etag=stale)
        assert not store.replace("k", b"third", etag="0" * 32)
        assert store.get("k") == b"second"
        store.delete(["k"])
        assert not store.replace("k", b"third", etag=stale)
        assert store.get("k") is None

    def test_of_concurrent_creators_one_wins(self, store: Store) -> None:
        """And it is its bytes that are there."""
        if not self.conditions.atomic:
            pytest.skip("the server lets several creators win")
        for number in range(5):
            key = f"race/{number}"
            with ThreadPoolExecutor(8) as pool:
                won = list(pool.map(lambda n, k=key: store.create(k, b"%d" % n), range(8)))
            assert won.count(True) == 1
            assert store.get(key) == b"%d" % won.index(True)

    def test_concurrent_replacers_lose_no_update(self, store: Store) -> None:
        """A counter that everybody increments by reading it and putting if it still matches."""
        if not self.conditions.suffice:
            pytest.skip("the server ignores conditions")
        store.put("counter", b"0 start")

        def increment(writer: int) -> None:
            for _ in range(4):
                while True:
                    read = store.read("counter")
                    assert read is not None
                    # The name makes bytes differ, as they must where an answer can be lost.
                    value = b"%d of %d" % (int(read.data.split()[0]) + 1, writer)
                    if store.replace("counter", value, etag=read.stored.etag):
                        break

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(increment, range(4)))
        assert (store.get("counter") or b"").split()[0] == b"16"

    def test_readers_see_one_object_or_the_other(self, store: Store) -> None:
        """Never a part of one, nor none, while it is replaced."""
        size = 1 << 20
        store.put("k", b"0" * size)
        with ThreadPoolExecutor(2) as pool:
            writing = pool.submit(_put_repeatedly, store, size)
            while not writing.done():
                data = store.get("k")
                assert data is not None
                assert (len(data), len(set(data))) == (size, 1)
            writing.result()

    def test_the_probe_tells_what_the_server_honours(self, store: Store) -> None:
        """And leaves nothing behind."""
        assert probe_conditions(store) == self.conditions
        assert store.list_folder("") == []


def _put_repeatedly(store: Store, size: int) -> None:
    for number in range(20):
        store.put("k", b"%d" % (number % 10) * size)


def _head(store: Store, key: str) -> StoredObject:
    found = store.head(key)
    assert found is not None
    return found
