from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.errors import report
from pipeline.cli.output import (
    PrintableFormatter,
    StageLog,
    emit,
    print_line,
    printable,
    say,
    table,
)
from pipeline.errors import ModelError

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


@given(st.text(st.characters()))
def test_nothing_printed_controls_a_terminal_and_nothing_printable_is_lost(text: str) -> None:
    shown = printable(text)
    assert all(character.isprintable() or character in "\n\t" for character in shown)
    assert (shown == text) == all(c.isprintable() or c in "\n\t" for c in text)
    shown.encode()
    assert printable(shown) == shown


def test_our_own_colors_stay() -> None:
    for color in ("red", "yellow", "green"):
        styled = click.style("failed", fg=color, bold=True)
        assert printable(styled) == styled


def _stage(text: str) -> None:
    with StageLog()(text) as describe:
        describe(text)


def _error(text: str) -> None:
    report(ModelError(text, hint=text), as_json=False)


def _log(text: str) -> None:
    record = logging.LogRecord("m", logging.WARNING, "", 0, "%s", (text,), None)
    say(PrintableFormatter().format(record))


@pytest.mark.parametrize(
    "tell",
    [say, print_line, _stage, _error, _log, lambda text: table([text], [[text]], title=text)],
)
def test_what_others_wrote_controls_no_terminal(
    tell: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    tell("fine\x1b[2J\x1b]0;taken\x07\r\x9b1A\u202e end")
    captured = capsys.readouterr()
    told = captured.out + captured.err
    assert "fine\\x1b[2J\\x1b]0;taken\\x07\\r\\x9b1A\\u202e end" in told
    assert not {"\x1b", "\x07", "\r", "\x9b", "\u202e"} & set(told)
