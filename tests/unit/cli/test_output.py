from __future__ import annotations

import json
import math

import pytest

from pipeline.cli.output import StageLog, emit, table

MARKUP = ["paths=[/data/a.csv]", "layers=[relu, tanh]", "[bold]", "[/]", ":smile:", "a\\[b]\\"]


@pytest.mark.parametrize("text", MARKUP)
def test_what_looks_like_markup_is_printed_as_it_is(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table(["name", f"by {text}"], [[text, None], [1, text]])
    lines = capsys.readouterr().out.splitlines()
    assert f"by {text}" in lines[0]
    assert lines[1].startswith(text)
    assert text in lines[2]


@pytest.mark.parametrize("text", MARKUP)
def test_stages_tell_what_looks_like_markup_as_it_is(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with StageLog()(f"fetch {text}") as describe:
        describe(f"from {text}")
    told = capsys.readouterr().err
    assert told.startswith(f"✓ fetch {text}")
    assert told.endswith(f" s  from {text}\n")


def test_a_stage_that_failed_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), StageLog()("export"):
        raise KeyboardInterrupt
    assert capsys.readouterr().err.startswith("✗ export ")


def test_json_has_null_where_there_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"a": (math.nan, 1.5), "b": {"c": math.inf, "d": [-math.inf, 1, True, "NaN", None]}}
    emit(values, as_json=True, human=lambda: pytest.fail("not asked for"))
    document = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert document == {"a": [None, 1.5], "b": {"c": None, "d": [None, 1, True, "NaN", None]}}
