"""``python -m pipeline.testing.prove``: break publications everywhere and print what came of it."""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from pathlib import Path

import click

_SHORT_CASES = 6


@click.command()
@click.option("--short", is_flag=True, help="A few rows, and of each a few cases, always the same.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
@click.option("--only", metavar="ROW", help="Only rows whose title contains this.")
@click.option("--fault", metavar="FAULT", help="Only faults whose name contains this.")
@click.option("--lanes", default=6, show_default=True, help="Models that are broken side by side.")
def prove(*, short: bool, as_json: bool, only: str | None, fault: str | None, lanes: int) -> None:
    """Break publications everywhere and print what came of it.

    Starts a stack of its own in a temporary folder. Exits with 1 if a column of failures is not 0.

    \b
    Examples:
      python -m pipeline.testing.prove --short
      python -m pipeline.testing.prove --only rollback
    """
    import json
    from dataclasses import asdict

    from pipeline.testing.prove.arena import open_arena
    from pipeline.testing.prove.plan import PLAN, SHORT, Means
    from pipeline.testing.prove.publisher import Publisher
    from pipeline.testing.prove.table import text_table

    # Ended in order by whatever ends it, so that no server stays.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()

    def tell(words: str) -> None:
        click.echo(f"{time.monotonic() - started:7.1f} s  {words}", err=True)

    rows = []
    with tempfile.TemporaryDirectory(prefix="tritonpipe-prove-") as folder:
        tell("starting the stack")
        with open_arena(Path(folder)) as arena:
            means = Means(
                arena=arena,
                publisher=Publisher(arena.variables, Path(folder)),
                lanes=lanes,
                cases=_SHORT_CASES if short else 0,
                fault=fault or "",
                tell=tell,
            )
            for title, make in PLAN.items():
                if (only and only not in title) or (short and not only and title not in SHORT):
                    continue
                row = make(title, means)
                if row is not None:
                    rows.append(row)
                    tell(f"{title}: {row.failures} failures in {row.breaks} breaks")
                    for words in row.words:
                        tell(f"WRONG  {words}")
    click.echo(json.dumps([asdict(row) for row in rows], indent=1) if as_json else text_table(rows))
    sys.exit(any(row.failures for row in rows))


if __name__ == "__main__":
    prove()
