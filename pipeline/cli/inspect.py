"""``tritonpipe inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from pipeline.cli.output import emit, json_option, say, table
from pipeline.cli.references import release_from_text

if TYPE_CHECKING:
    from pipeline.flows.inspection import Inspection
    from pipeline.manifest import Lineage

_MOST_TENSORS: Final = 8
_MOST_FILES: Final = 6
_MOST_EVENTS: Final = 6


@click.command()
@click.argument("release")
@json_option
def inspect(release: str, as_json: bool) -> None:  # noqa: FBT001
    """Show what a release takes, gives and is made of.

    With it, where it comes from: the run that trained it, and its report in MLflow.

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
                ["inputs", _first([str(spec) for spec in found.inputs])],
                ["outputs", _first([str(spec) for spec in found.outputs])],
                ["configuration", found.configuration],
                [
                    "answers must agree within",
                    f"{found.absolute_tolerance:g} + {found.relative_tolerance:g} * |expected|",
                ],
                ["served", "yes" if found.served else "no"],
                ["intact in the repository", "yes" if found.intact else "no"],
                ["registered model", _registered(lineage)],
                ["source", f"{lineage.source} ({lineage.flavor})"],
                ["source digest", lineage.source_digest],
                ["tools", ", ".join(f"{k} {v}" for k, v in sorted(manifest.tools.items()))],
                *([] if lineage.is_by_hand else _run_rows(lineage.run_id, found)),
            ],
        )
        files = manifest.files[:_MOST_FILES]
        table(["file", "bytes", "SHA-256"], [[f.path, f.size, f.sha256] for f in files])
        events = found.events[-_MOST_EVENTS:]
        table(
            ["when (UTC)", "event", "by", "reason"],
            [[e.at, f"{e.action}: {e.event}", e.by, e.reason] for e in events],
        )
        if len(files) < len(manifest.files) or len(events) < len(found.events):
            say(
                f"{len(manifest.files) - len(files)} more files and "
                f"{len(found.events) - len(events)} earlier events: --json, and tritonpipe history"
            )

    emit(found, as_json=as_json, human=human)
    for problem in found.problems:
        say(f"warning: {problem}")


def _first(names: list[str]) -> str:
    more = len(names) - _MOST_TENSORS
    return ", ".join(names[:_MOST_TENSORS]) + (f" and {more} more: --json" if more > 0 else "")


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
        ["report", found.report or "the registry has no pages"],
        ["experiment", run.experiment],
        ["parameters", ", ".join(f"{k}={v}" for k, v in sorted(run.parameters.items())) or "none"],
        ["metrics", ", ".join(f"{k}={v:g}" for k, v in sorted(run.metrics.items())) or "none"],
    ]
