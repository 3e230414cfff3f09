"""``tritonpipe inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.cli.output import emit, json_option, say, table
from pipeline.cli.references import release_from_text

if TYPE_CHECKING:
    from pipeline.flows.inspection import Inspection
    from pipeline.manifest import Lineage


@click.command()
@click.argument("release")
@json_option
def inspect(release: str, as_json: bool) -> None:  # noqa: FBT001
    """Show what a release is made of, and what run trained it.

    RELEASE is MODEL/VERSION, or MODEL for the version published now.

    \b
    Examples:
      tritonpipe inspect fraud
      tritonpipe inspect fraud/7 --json
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.inspection import inspect as inspect_release

    model, version = release_from_text(release, command="inspect")
    found = inspect_release(model, version, effective_settings())
    manifest, lineage = found.manifest, found.manifest.lineage

    def human() -> None:
        table(
            ["release", f"{manifest.model}/{manifest.version}"],
            [
                ["digest", found.digest],
                ["served", "yes" if found.served else "no"],
                ["intact in the repository", "yes" if found.intact else "no"],
                ["registered model", _registered(lineage)],
                ["source", f"{lineage.source} ({lineage.flavor})"],
                ["source digest", lineage.source_digest],
                ["tools", ", ".join(f"{k} {v}" for k, v in sorted(manifest.tools.items()))],
                *([] if lineage.is_by_hand else _run_rows(lineage.run_id, found)),
            ],
        )
        table(["file", "bytes", "SHA-256"], [[f.path, f.size, f.sha256] for f in manifest.files])
        table(
            ["when (UTC)", "event", "by", "reason"],
            [[e.at, f"{e.action}: {e.event}", e.by, e.reason] for e in found.events],
        )

    emit(found, as_json=as_json, human=human)
    for problem in found.problems:
        say(f"warning: {problem}")


def _registered(lineage: Lineage) -> str:
    if lineage.is_by_hand:
        return "none: published by hand"
    return f"{lineage.registered_model}/{lineage.registered_version}"


def _run_rows(run_id: str | None, found: Inspection) -> list[list[object]]:
    run = found.run
    if run_id is None:
        return [["run", "registered without a run"]]
    if run is None:
        why = "the registry did not answer" if found.problems else "no longer in the registry"
        return [["run", f"{run_id} ({why})"]]
    return [
        ["run", f"{run.run_id} ({run.name}) by {run.user} at {run.started}"],
        ["experiment", run.experiment],
        ["parameters", ", ".join(f"{k}={v}" for k, v in sorted(run.parameters.items())) or "none"],
        ["metrics", ", ".join(f"{k}={v:g}" for k, v in sorted(run.metrics.items())) or "none"],
    ]
