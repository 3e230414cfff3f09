"""What commands print: data on stdout, words on stderr, never the other way round.

A command hands over values; whether they become a table or JSON is decided here.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from pipeline.serialization import to_json

F = TypeVar("F", bound=Callable[..., Any])


def json_option(command: F) -> F:
    """Add ``--json``: the command's data as one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")(command)


def dry_run_option(command: F) -> F:
    """Add ``--dry-run``: print what would be done and change nothing."""
    return click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")(command)


def emit(value: Any, *, as_json: bool, human: Callable[[], None]) -> None:
    """Print the command's data: as JSON, or by calling ``human``."""
    if as_json:
        click.echo(json.dumps(to_json(value), indent=1))
    else:
        human()


def say(text: str) -> None:
    """Print words for a person, on stderr."""
    click.echo(text, err=True)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Print a table on stdout; plain text when stdout is not a terminal."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for header in headers:
        grid.add_column(header, overflow="fold")
    for row in rows:
        grid.add_row(*("" if cell is None else str(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160).print(grid)


class StageLog:
    """Draws the stages of a long command on stderr: one line each, with its duration.

    Passed to flows as their progress callback. On a terminal the running stage is animated and
    shows how far it is, since an installation on a slow network would look as if it hung.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[Callable[[str], None]]:
        """Show ``stage`` while the body runs; the yielded function says how far it is."""
        outcome, mark = "", "[red]✗[/red]"
        started = time.perf_counter()
        with self._console.status(f"{stage} …") as animation:

            def describe(text: str) -> None:
                nonlocal outcome
                outcome = text
                animation.update(f"{stage} … {text}")

            try:
                yield describe
                mark = "[green]✓[/green]"
            finally:
                seconds = time.perf_counter() - started
                self._console.print(f"{mark} {stage:<10} {seconds:6.2f} s  ", end="")
                self._console.print(outcome, markup=False, soft_wrap=True)
