"""``tritonpipe retire``: take a model away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.cli.output import StageLog, dry_run_option, emit, json_option, print_line

if TYPE_CHECKING:
    from pipeline.flows.retire import RetireResult


@click.command()
@click.argument("model")
@click.option("--reason", default="", help="Why, for the journal.")
@dry_run_option
@json_option
def retire(model: str, reason: str, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001
    """Take a Triton model away: nobody gets an answer any more.

    Its releases stay on record, for `history` and `audit`; served again, it is exported anew. A
    model that a published ensemble needs is left alone. While `tritonpipe watch` runs and an alias
    wishes the model, it is served again at once: remove the alias first.

    \b
    Examples:
      tritonpipe retire fraud-test
      tritonpipe retire fraud-test --dry-run
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.retire import plan_retirement
    from pipeline.flows.retire import retire as run_retire

    settings = effective_settings()
    if dry_run:
        found = plan_retirement(model, settings)
    else:
        found = run_retire(model, settings, reason=reason, progress=StageLog())
    emit(found, as_json=as_json, human=lambda: _print(found, dry_run=dry_run))


def _print(found: RetireResult, *, dry_run: bool) -> None:
    verb = "would be removed" if dry_run else "removed"
    versions = ", ".join(map(str, found.versions)) or "none"
    parts = f", with {' and '.join(found.parts)}" if found.parts else ""
    served = "nothing was served" if found.version is None else f"version {found.version} served"
    print_line(f"{found.model}{parts}: {served}; versions {verb}: {versions}")
