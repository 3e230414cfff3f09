from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import ConflictError, SettingsError, UnavailableError
from pipeline.stores import open_store
from pipeline.stores.local import LocalStore


def folders_below(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_dir())


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/"])
def test_it_is_opened_by_its_path(tmp_path: Path, form: str) -> None:
    store = open_store(form.format(tmp_path / "r"))
    store.put("a/b", b"x")
    assert store.url == str(tmp_path / "r")
    assert (tmp_path / "r" / "a" / "b").read_bytes() == b"x"


def test_nothing_but_objects_and_their_folders_is_below_the_root(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "r")
    store.put("m/1/f", b"x")
    store.create("m/1/g", b"x")
    assert folders_below(tmp_path / "r") == ["m", "m/1"]
    assert sum(1 for p in (tmp_path / "r").rglob("*") if p.is_file()) == 2


def test_a_root_without_room_beside_it_has_no_folders_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    store = LocalStore(tmp_path / "r")
    with store._staging.file(b"half") as staged:
        assert staged.parent == tmp_path / "r"
        assert store.list_folder("") == []
    store.put("f", b"x")
    assert [o.key for o in store.list_folder("")] == ["f"]
    assert folders_below(tmp_path / "r") == []
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_an_emptied_folder_is_removed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "r")
    store.put("m/1/f", b"x")
    store.put("m/config.pbtxt", b"x")
    store.delete(["m/1/f"])
    assert folders_below(tmp_path / "r") == ["m"]
    store.delete(["m/config.pbtxt"])
    assert folders_below(tmp_path / "r") == []


def test_a_reader_keeps_the_object_that_it_opened(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "r")
    store.put("k", b"old")
    with (tmp_path / "r" / "k").open("rb") as reader:
        store.put("k", b"new")
        assert reader.read() == b"old"


def test_a_file_cannot_be_where_a_folder_is(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "r")
    store.put("a/b", b"x")
    for key in ("a", "a/b/c"):
        with pytest.raises(ConflictError, match="cannot write"):
            store.put(key, b"x")
        assert store.get(key) is None
    assert [o.key for o in store.list_folder("")] == ["a/b"]


def test_a_full_disk_leaves_the_old_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "r")
    store.put("k", b"old")
    # Writing to this device gives ENOSPC.
    store._staging._ensure_folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _no_space)
        with pytest.raises(UnavailableError, match="No space left"):
            store.put("k", b"new")
    assert store.get("k") == b"old"
    assert [p.name for p in store._staging._ensure_folder().iterdir()] == [".tritonpipe-lock"]


def _no_space(_descriptor: int) -> None:
    raise OSError(28, os.strerror(28))


def test_a_root_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(b"")
    with pytest.raises((ConflictError, SettingsError), match="cannot write"):
        LocalStore(tmp_path / "r").put("k", b"x")


def test_what_killed_writers_left_is_removed_after_a_day(tmp_path: Path) -> None:
    staging = tmp_path / ".r.staging"
    staging.mkdir()
    old, young = staging / ".tritonpipe-old", staging / ".tritonpipe-young"
    for path, age in ((old, 90_000), (young, 60)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    LocalStore(tmp_path / "r").put("k", b"x")
    assert (old.exists(), young.exists()) == (False, True)


_WRITER = """
import sys
from pathlib import Path
from pipeline.stores.local import LocalStore
store = LocalStore(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(100_000):
    store.put("m/k", b"%d" % (number % 10) * 300_000)
    store.delete(["m/other"])
    store.create("m/other", b"%d" % (number % 10) * 300_000)
"""


def test_killed_at_any_moment_a_reader_sees_the_old_or_the_new(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "r")
    store.put("m/k", b"0" * 300_000)
    for _ in range(6):
        command = [sys.executable, "-c", _WRITER, str(tmp_path / "r")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(random.random() * 0.05)
            writer.kill()
        data = store.get("m/k")
        assert data is not None
        assert (len(data), len(set(data))) == (300_000, 1)
        assert {o.key for o in store.list_folder("")} <= {"m/k", "m/other"}
        assert {o.size for o in store.list_folder("")} == {300_000}
        store.put("m/k", b"0" * 300_000)  # the lock died with its holder
