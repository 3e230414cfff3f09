"""Which requests a sweep breaks, and what its table says."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from pipeline.manifest import differences
from pipeline.model_config import config_from_text, served_version
from pipeline.testing.prove.breaks import At, Break, Throughout, faults, kills
from pipeline.testing.prove.entries import Flaw, Recipe, golden_answers, make_candidate
from pipeline.testing.prove.table import Row, text_table
from pipeline.testing.s3_faults import Fault, Request
from pipeline.testing.s3_proxy import Seen


def seen(number: int, method: str, *, status: int = 200, size: int = 0, query: str = "") -> Seen:
    request = Request(number=number, method=method, path=f"/b/{number}", query=query, size=size)
    return Seen(request=request, fault=None, status=status)


RUN = (
    seen(1, "GET", query="list-type=2&prefix=m"),
    seen(2, "HEAD", status=404),
    seen(3, "PUT", size=10),
)


def at(breaks: Iterable[Break]) -> set[tuple[int, Fault]]:
    return {(b.number, b.fault) for b in breaks if isinstance(b, At)}


def test_every_request_is_killed_before_and_after_and_uploads_half_way() -> None:
    assert at(kills(RUN)) == {
        *((number, Fault.KILL_BEFORE) for number in (1, 2, 3)),
        *((number, Fault.KILL_AFTER) for number in (1, 2, 3)),
        (3, Fault.KILL_DURING),
    }


def test_every_fault_happens_where_it_can() -> None:
    points = at(faults(RUN))
    everywhere = {
        Fault.INTERNAL_ERROR,
        Fault.SLOW_DOWN,
        Fault.RESET,
        Fault.SILENCE,
        Fault.FORBIDDEN,
        Fault.LOST_ANSWER,
    }
    assert {f for n, f in points if n == 2} == everywhere
    assert {f for n, f in points if n == 3} == everywhere | {Fault.CORRUPTED_UPLOAD}
    assert (1, Fault.STALE_LISTING) in points
    assert {f for _, f in points} == set(Fault) - {
        Fault.KILL_BEFORE,
        Fault.KILL_DURING,
        Fault.KILL_AFTER,
    }


def test_a_lasting_fault_follows_its_request_and_no_other() -> None:
    first, again, other = (
        Request(number=number, method="PUT", path=path, query="", size=1)
        for number, path in ((1, "/b/a"), (2, "/b/a"), (3, "/b/b"))
    )
    lasting = At(number=1, fault=Fault.RESET, is_lasting=True).choice()
    assert [lasting(r) for r in (first, again, other)] == [Fault.RESET, Fault.RESET, None]
    once = At(number=1, fault=Fault.RESET).choice()
    assert [once(r) for r in (first, again, other)] == [Fault.RESET, None, None]


def test_a_pattern_begins_anew_in_every_run() -> None:
    pattern = Throughout(name="jumps", faults=(Fault.CLOCK_AHEAD, None))
    for _ in range(2):
        choose = pattern.choice()
        assert [choose(s.request) for s in RUN] == [Fault.CLOCK_AHEAD, None, Fault.CLOCK_AHEAD]


def test_a_recipe_gives_the_same_bytes_each_time(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made = make_candidate(Recipe(model="m", version=3, ballast=100), tmp_path / name)
        assert made.entry is not None
        assert differences(made.entry.folder, made.release.manifest) == []
        digests.add(made.release.manifest.digest)
        assert made.golden.to_bytes() == golden_answers(3).to_bytes()
    assert len(digests) == 1


@pytest.mark.parametrize("flaw", Flaw)
def test_a_bad_version_has_the_golden_answers_of_a_good_one_and_other_files(
    tmp_path: Path, flaw: Flaw
) -> None:
    made = []
    for name, recipe in (
        ("good", Recipe(model="m", version=3)),
        ("bad", Recipe(model="m", version=3, flaw=flaw)),
    ):
        (tmp_path / name).mkdir()
        made.append(make_candidate(recipe, tmp_path / name))
    good, bad = made
    assert good.golden.to_bytes() == bad.golden.to_bytes()
    assert good.release.manifest.files != bad.release.manifest.files
    assert served_version(bad.release.config) == 3


def test_an_ensemble_asks_its_steps_one_after_another(tmp_path: Path) -> None:
    made = make_candidate(Recipe(model="m", version=1, steps=("a", "b")), tmp_path)
    steps = config_from_text(made.release.config).ensemble_scheduling.step
    assert [(s.model_name, s.input_map["x"], s.output_map["y"]) for s in steps] == [
        ("a", "x", "between-1"),
        ("b", "between-1", "y"),
    ]


def test_a_row_fails_if_any_column_of_failures_is_not_zero() -> None:
    assert Row(scenario="s", breaks=3, requests=5).failures == 0
    for column in ("failed", "wrong", "half_loaded", "wrong_state", "false_success"):
        assert Row(scenario="s", **{column: 1}).failures == 1  # type: ignore[arg-type]


def test_the_table_is_aligned() -> None:
    rows = [Row(scenario="a", requests=12345, seconds=1.6), Row(scenario="a longer one")]
    lines = text_table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "12,345" in lines[1]
    assert lines[1].endswith(" 2")
    assert os.linesep not in lines[0]
