"""``tritonpipe audit``: what answered then, and where it came from."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import emit, json_option, print_line, say, table

if TYPE_CHECKING:
    from pipeline.flows.audit import Answered, Audit


@click.command()
@click.argument("model")
@click.option("--at", required=True, help="The moment, as 2026-11-17T14:05; local without a zone.")
@json_option
def audit(model: str, at: str, as_json: bool) -> None:  # noqa: FBT001
    """Show what answered at a moment, from which run and data.

    While a commit was under way two versions may have answered; both are shown then.

    \b
    Examples:
      tritonpipe audit fraud --at 2026-11-17T14:05
      tritonpipe audit fraud --at 2026-11-17T13:05:00Z --json
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.audit import audit as find

    try:
        moment = datetime.fromisoformat(at).astimezone()
    except ValueError:
        raise click.BadParameter(
            f"{at!r} is no moment; write it as 2026-11-17T14:05", param_hint="--at"
        ) from None
    found = find(model, moment, effective_settings())
    emit(found, as_json=as_json, human=lambda: _print(found))
    for problem in found.problems:
        say(f"warning: {problem}")


def _print(found: Audit) -> None:
    if not found.answered:
        print_line(f"nothing was served as {found.model} at {found.at}")
    for answered in found.answered:
        verb = "answered" if answered.is_certain else "may have answered"
        attempt = answered.attempt
        table([f"{verb} at {found.at}", f"{found.model}/{attempt.version}"], _rows(answered))


def _rows(answered: Answered) -> list[list[object]]:
    attempt, run = answered.attempt, answered.run
    until = attempt.served_until or "now"
    rows: list[list[object]] = [
        ["served", f"from {attempt.served_from or attempt.started} until {until}"],
        ["by", f"{attempt.by} ({attempt.action})"],
        ["release", attempt.digest or "not on record"],
        ["registered model", f"{attempt.registered_model}/{attempt.registered_version}"],
        ["source", attempt.source],
        ["run", attempt.run_id or "none"],
    ]
    if run is not None:
        rows += [
            ["trained", f"by {run.user} at {run.started} in {run.experiment} ({run.name})"],
            ["data", ", ".join(run.datasets) or "not written down by the run"],
            ["parameters", ", ".join(f"{k}={v}" for k, v in sorted(run.parameters.items()))],
            ["metrics", ", ".join(f"{k}={v:g}" for k, v in sorted(run.metrics.items()))],
        ]
    return rows
