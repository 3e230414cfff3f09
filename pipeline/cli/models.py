"""``tritonpipe promote | rollback | status | inspect``."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import StageLog, dry_run_option, emit, json_option, say, table
from pipeline.errors import RequestError

if TYPE_CHECKING:
    from pipeline.artifacts import PromotionRequest, PublishPlan
    from pipeline.flows.status import Inspection
    from pipeline.manifest import Lineage

# MLflow allows @ in names of models, but not in aliases; the last one separates.
_REFERENCE = re.compile(
    r"(?P<model>[^/]+)(@(?P<alias>[^/@]+)|/(?P<version>[1-9][0-9]{0,17}))|(?P<bare>[^/@]+)"
)


@click.command()
@click.argument("model")
@click.option("--name", help="Serve it under this name instead of the registered model's.")
@click.option(
    "--env",
    type=click.Choice(["ours", "model"]),
    help="Export with the packages that are installed here, or with those that the model asks for.",
)
@dry_run_option
@json_option
def promote(
    model: str,
    name: str | None,
    env: str | None,
    dry_run: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Serve a model version: export, check, publish, confirm.

    MODEL is NAME@ALIAS, NAME/VERSION, or NAME for the default alias (TRITONPIPE_ALIAS, champion).
    Unless this succeeds, what was served before is still served.

    \b
    Examples:
      tritonpipe promote fraud@champion
      tritonpipe promote fraud/7 --dry-run
      tritonpipe promote "Fraud model@champion" --name fraud
      tritonpipe promote fraud/7 --env model
    """
    from pipeline.configuration import load_configuration
    from pipeline.flows.promote import plan_promotion
    from pipeline.flows.promote import promote as run_promotion
    from pipeline.settings import load_settings

    configuration = load_configuration(load_settings())
    alias = configuration.settings_of(None).alias
    request = request_from_text(model, alias=alias, triton_name=name)
    settings = configuration.settings_of(configuration.table_of(request.model))
    if env is not None:
        settings = settings.model_copy(update={"env": env})
    if dry_run:
        plan = plan_promotion(request, settings, progress=StageLog())
        emit(plan, as_json=as_json, human=lambda: print_plan(plan))
        return
    result = run_promotion(request, settings, progress=StageLog())

    def human() -> None:
        errors = [c.max_absolute_error for c in result.confirmation.comparisons]
        before = "nothing" if result.previous is None else f"version {result.previous}"
        table(
            ["model", "version", "outcome", "before", "max abs. error", "release"],
            [
                [
                    result.triton_name,
                    result.confirmation.version,
                    result.outcome,
                    before,
                    f"{max(errors):.1e}",
                    result.digest[:19],
                ]
            ],
        )

    emit(result, as_json=as_json, human=human)
    address = settings.triton_http.split(",")[0]
    say(f"inputs and outputs: curl -s http://{address}/v2/models/{result.triton_name}")


@click.command()
@click.argument("model")
@click.option("--to", type=click.IntRange(min=1), help="A kept release; default: the previous one.")
@dry_run_option
@json_option
def rollback(model: str, to: int | None, dry_run: bool, as_json: bool) -> None:  # noqa: FBT001
    """Serve the previous release of a Triton model again.

    This is one write, without an export. The alias in MLflow stays where it is; move it there if
    the wish has changed, too.

    \b
    Examples:
      tritonpipe rollback fraud
      tritonpipe rollback fraud --to 5
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.rollback import plan_rollback
    from pipeline.flows.rollback import rollback as run_rollback

    settings = effective_settings()
    if dry_run:
        plan = plan_rollback(model, settings, to=to)
        emit(
            plan,
            as_json=as_json,
            human=lambda: click.echo(
                f"{plan.model}: version {plan.version} would be served instead of {plan.previous}"
            ),
        )
        return
    result = run_rollback(model, settings, to=to, progress=StageLog())
    emit(
        result,
        as_json=as_json,
        human=lambda: click.echo(
            f"{result.plan.model}: version {result.plan.version} is served again "
            f"instead of {result.plan.previous}"
        ),
    )


@click.command()
@click.argument("model", required=False)
@json_option
def status(model: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Show what MLflow wishes, S3 holds and Triton serves.

    \b
    Examples:
      tritonpipe status
      tritonpipe status fraud --json
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.status import status as read_status

    report = read_status(effective_settings(), model=model)

    def human() -> None:
        headers = ["model", f"wished ({report.alias})", "published", "served", "release", "state"]
        rows = [
            [
                f"  {m.model}" if m.part_of else m.model,
                _or_dash(m.wished),
                _or_dash(m.published),
                _or_dash(m.served),
                m.digest[:19],
                f"{m.state}, part of {m.part_of}" if m.part_of else m.state,
            ]
            for m in report.models
        ]
        if rows:
            table(headers, rows)
        else:
            say(f"nothing is published, and no registered model has the alias {report.alias!r}")

    emit(report, as_json=as_json, human=human)
    for problem in report.problems:
        say(f"warning: {problem}")


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
    from pipeline.flows.status import inspect as inspect_release

    request = request_from_text(release)
    if request.alias is not None:
        raise RequestError(
            f"{release!r} names an alias, and releases have none: an alias may have moved since",
            hint=f"tritonpipe inspect {request.model}, or {request.model}/VERSION",
        )
    found = inspect_release(request.model, request.version, effective_settings())
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


def request_from_text(
    text: str, *, alias: str | None = None, triton_name: str | None = None
) -> PromotionRequest:
    """Read ``NAME@ALIAS``, ``NAME/VERSION`` or ``NAME``, which means ``alias``.

    A name with ``@`` in it needs the alias or the version: ``a@b@c`` is alias ``c`` of ``a@b``.

    Raises:
        RequestError: The text is none of these.
    """
    from pipeline.artifacts import PromotionRequest

    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise RequestError(
            f"{text!r} does not name a model version",
            hint="write NAME@ALIAS, NAME/VERSION (a positive number) or NAME",
        )
    version = int(match["version"]) if match["version"] else None
    return PromotionRequest(
        model=match["model"] or match["bare"],
        alias=None if version else match["alias"] or alias,
        version=version,
        triton_name=triton_name,
    )


def print_plan(plan: PublishPlan) -> None:
    """Print a plan, one line for each object."""
    for part in plan.parts:
        print_plan(part)
    if replace(plan, parts=()).is_empty:
        click.echo(f"{plan.model}/{plan.version} is published and committed: nothing to do")
        return
    for key in plan.deletes:
        click.echo(f"delete  {key}  (left behind by a publication that never committed)")
    for file in plan.uploads:
        click.echo(f"upload  {plan.model}/{plan.version}/{file.path}  {file.size} bytes")
    if plan.signed:
        click.echo(f"upload  {plan.model}/{plan.version}/manifest.json.sig")
    if plan.commit:
        before = "nothing" if plan.previous is None else f"version {plan.previous}"
        click.echo(f"commit  {plan.model}/config.pbtxt  version {plan.version} instead of {before}")


def _or_dash(version: int | None) -> str:
    return "-" if version is None else str(version)
