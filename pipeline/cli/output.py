"""What commands print: data on stdout, words on stderr, never the other way round.

A command hands over values; whether they become a table or JSON is decided here. So is what a
terminal gets: names, tags and reasons are other people's, and none of their characters controls it.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from pipeline.serialization import to_json

F = TypeVar("F", bound=Callable[..., Any])

_COLORS: Final = re.compile("(\x1b\\[(?:0|1|3[0-7])m)")
"""Bold, colors and their end: what ``click.style`` writes for us, and harmless from others."""


def printable(text: str) -> str:
    """The text with every character escaped that is not printable, but line feeds and tabs."""
    return "".join(
        part if _COLORS.fullmatch(part) else "".join(map(_printable, part))
        for part in _COLORS.split(text)
    )


def _printable(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return character.encode("unicode_escape").decode("ascii")


class PrintableFormatter(logging.Formatter):
    """Formats lines of the log as words are printed."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return printable(super().format(record))


def json_option(command: F) -> F:
    """Add ``--json``: the command's data as one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(command)


def dry_run_option(command: F) -> F:
    """Add ``--dry-run``: print what would be done and change nothing."""
    return click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")(command)


def emit(value: Any, *, as_json: bool, human: Callable[[], None]) -> None:
    """Print the command's data: as JSON, or by calling ``human``.

    JSON has no NaN and no infinity; both are written as ``null``, as JavaScript does, so that any
    reader takes the document and a number stays a number or nothing.
    """
    if as_json:
        click.echo(json.dumps(_finite(to_json(value)), indent=1, allow_nan=False))
    else:
        human()


def say(text: str) -> None:
    """Print words for a person, on stderr."""
    click.echo(printable(text), err=True)


def print_line(text: str) -> None:
    """Print data for a person that is no table, on stdout."""
    click.echo(printable(text))


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Print a table on stdout; plain text when stdout is not a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # As plain strings, what looks like markup (paths=[/data]) would vanish or be an error.
    grid = Table(title=printable(title) or None, title_justify="left", box=None, pad_edge=False)
    for header in headers:
        grid.add_column(Text(printable(header)), overflow="fold")
    for row in rows:
        grid.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(grid)


class StageLog:
    """Draws the stages of a long command on stderr: one line each, with its duration.

    Passed to flows as their progress callback. On a terminal the running stage is animated and
    shows how far it is, since an installation on a slow network would look as if it hung.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, emoji=False)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[Callable[[str], None]]:
        """Show ``stage`` while the body runs; the yielded function says how far it is."""
        from rich.text import Text

        stage = printable(stage)
        outcome, mark = "", Text("✗", style="red")
        started = time.perf_counter()
        with self._console.status(Text(f"{stage} …")) as animation:

            def describe(text: str) -> None:
                nonlocal outcome
                outcome = printable(text)
                animation.update(Text(f"{stage} … {outcome}"))

            try:
                yield describe
                mark = Text("✓", style="green")
            finally:
                seconds = time.perf_counter() - started
                self._console.print(mark, Text(f"{stage:<10} {seconds:6.2f} s "), end=" ")
                self._console.print(outcome, markup=False, soft_wrap=True)


def _finite(value: Any) -> Any:
    """``value``, of :func:`to_json`, with None for every float that is no number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
