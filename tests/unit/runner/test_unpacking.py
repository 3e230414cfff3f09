from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest

from pipeline.manifest import digest_folder
from pipeline.runner.unpacking import (
    VARIABLE,
    UnpackingError,
    cache_folder,
    scratch,
    unpacked,
)
from pipeline.tar_archives import write_tar


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "deep" / "program").write_bytes(b"#!")
    (folder / "deep" / "program").chmod(0o700)
    (folder / "data").write_bytes(bytes(range(256)) * 1000)
    return folder


def packed(folder: Path, file: Path) -> str:
    with file.open("wb") as stream:
        write_tar(folder, stream, is_compressed=True)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def soon() -> float:
    return time.monotonic() + 20


def test_the_same_files_give_the_same_bytes_whoever_packs_them(
    source: Path, tmp_path: Path
) -> None:
    first = packed(source, tmp_path / "one.tar.gz")
    for path in source.rglob("*"):
        os.utime(path, (0, 0))
    (source / "data").chmod(0o400)
    assert packed(source, tmp_path / "other-name.tar.gz") == first
    (source / "data").chmod(0o600)
    (source / "data").write_bytes(b"changed")
    assert packed(source, tmp_path / "one.tar.gz") != first


def test_an_archive_is_unpacked_once_and_whole(source: Path, tmp_path: Path) -> None:
    archive = tmp_path / "packages.tar.gz"
    sha256 = packed(source, archive)
    seen: list[tuple[int, int]] = []

    def use() -> None:
        with unpacked(archive, sha256, deadline=soon(), folder=tmp_path) as content:
            assert digest_folder(content) == digest_folder(source)
            assert os.access(content / "deep" / "program", os.X_OK)
            status = content.stat()
            seen.append((status.st_ino, status.st_ctime_ns))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    archive.unlink()
    use()
    assert len(seen) == 5
    assert len(set(seen)) == 1


@pytest.mark.parametrize("damage", ["other", "cut", "outside", "link", "no archive", "late"])
def test_what_is_damaged_or_leaves_its_folder_is_refused_whole(
    source: Path, tmp_path: Path, damage: str
) -> None:
    archive = tmp_path / "packages.tar.gz"
    sha256 = packed(source, archive)
    deadline = soon()
    if damage == "other":
        sha256 = "0" * 64
    elif damage == "late":
        deadline = time.monotonic() - 1
    else:
        content = archive.read_bytes()[:300] if damage == "cut" else b"no archive"
        if damage in ("outside", "link"):
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as tar:
                entry = tarfile.TarInfo("../outside" if damage == "outside" else "link")
                if damage == "link":
                    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
                tar.addfile(entry)
            content = stream.getvalue()
        archive.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
    with (
        pytest.raises(UnpackingError),
        unpacked(archive, sha256, deadline=deadline, folder=tmp_path),
    ):
        pass
    assert not (tmp_path / sha256).exists()
    assert not (tmp_path / "outside").exists()


def test_what_nobody_uses_any_more_goes_and_what_is_used_stays(
    source: Path, tmp_path: Path
) -> None:
    long_ago = time.time() - 3 * 24 * 3600
    shas = []
    for number in range(3):
        (source / "number").write_text(str(number))
        archive = tmp_path / f"{number}.tar.gz"
        shas.append(packed(source, archive))
        if number < 2:
            with unpacked(archive, shas[-1], deadline=soon(), folder=tmp_path):
                pass
    with unpacked(tmp_path / "0.tar.gz", shas[0], deadline=soon(), folder=tmp_path):
        for sha in shas[:2]:
            os.utime(tmp_path / sha / "complete", (long_ago, long_ago))
        with unpacked(tmp_path / "2.tar.gz", shas[2], deadline=soon(), folder=tmp_path):
            assert (tmp_path / shas[0]).exists(), "it is in use"
            assert not (tmp_path / shas[1]).exists()


def test_the_folder_is_nobody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    assert cache_folder().stat().st_mode & 0o777 == 0o700
    (tmp_path / "cache").chmod(0o777)
    with pytest.raises(UnpackingError, match=VARIABLE):
        cache_folder()
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "link"))
    with pytest.raises(UnpackingError, match=VARIABLE):
        cache_folder()


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / "scratch-left"
    left.mkdir()
    with scratch(tmp_path) as first:
        assert not left.exists()
        with scratch(tmp_path) as second:
            assert first.exists()
            assert second != first
    assert list(tmp_path.glob("scratch-*")) == []
