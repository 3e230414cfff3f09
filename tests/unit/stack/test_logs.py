from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.stack.logs import LogFollower, begin_log, tail


@pytest.mark.parametrize("count", [0, 1, 3, 20_000, 50_000])
def test_the_end_of_a_log(tmp_path: Path, count: int) -> None:
    lines = [f"line {i} ü" for i in range(20_000)]
    log = tmp_path / "log"
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert tail(log, count) == (lines[-count:] if count else [])


def test_a_log_without_a_last_line_break_or_that_is_missing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log, 5) == []
    log.write_bytes(b"a\nb\nc")
    assert tail(log, 2) == ["b", "c"]
    log.write_bytes(b"\xff\xfe not text")
    assert tail(log, 2) == ["\ufffd\ufffd not text"]


def test_following_gives_whole_lines_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("old\n")
    follower = LogFollower({"s3": log, "triton": tmp_path / "not yet"})
    assert list(follower.new_lines()) == []
    with log.open("a") as file:
        file.write("one\nhal")
    assert list(follower.new_lines()) == [("s3", "one")]
    with log.open("a") as file:
        file.write("f\n")
    (tmp_path / "not yet").write_text("born\n")
    assert list(follower.new_lines()) == [("s3", "half"), ("triton", "born")]
    assert list(follower.new_lines()) == []


def test_following_goes_on_in_the_log_of_the_next_run(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("a long line of the first run\n")
    follower = LogFollower({"s3": log})
    begin_log(log)
    log.write_text("second run\n")
    assert list(follower.new_lines()) == [("s3", "second run")]
