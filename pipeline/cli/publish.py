"""``tritonpipe publish``: entries of the model repository that people wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.models import print_plan
from pipeline.cli.output import StageLog, dry_run_option, emit, json_option, table

if TYPE_CHECKING:
    from pipeline.flows.handwritten import PublicationResult


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@dry_run_option
@json_option
def publish(paths: tuple[Path, ...], dry_run: bool, as_json: bool) -> None:  # noqa: FBT001
    """Serve entries written by hand: validate, publish, confirm.

    PATH is a folder NAME with config.pbtxt, golden.json and one version folder N, for an ensemble,
    a Python step or an ONNX file. Several change together, steps and ensembles in any order.
    Unless this succeeds, what was served before is still served.

    \b
    Examples:
      tritonpipe publish model_repository/json-to-features
      tritonpipe publish model_repository/tokenise model_repository/answer --dry-run
      git mv model_repository/tokenise/1 model_repository/tokenise/2   # changed files, new version
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.handwritten import plan
    from pipeline.flows.handwritten import publish as run_publication

    settings = effective_settings()
    if dry_run:
        plans = plan(paths, settings, progress=StageLog())

        def human() -> None:
            for each in plans:
                print_plan(each)

        emit(plans, as_json=as_json, human=human)
        return
    result = run_publication(paths, settings, progress=StageLog())
    emit(result, as_json=as_json, human=lambda: _print_result(result))


def _print_result(result: PublicationResult) -> None:
    rows = []
    for entry in result.entries:
        errors = [c.max_absolute_error for c in entry.confirmation.comparisons]
        before = "nothing" if entry.previous is None else f"version {entry.previous}"
        digest = entry.digest[:19]
        rows.append(
            [entry.model, entry.version, entry.outcome, before, f"{max(errors):.1e}", digest]
        )
    table(["model", "version", "outcome", "before", "max abs. error", "release"], rows)
