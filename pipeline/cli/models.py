"""``tritonpipe promote | rollback``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import StageLog, dry_run_option, emit, json_option, print_line, say, table
from pipeline.cli.references import release_from_text, request_from_text
from pipeline.errors import RequestError

if TYPE_CHECKING:
    from pipeline.artifacts import PublishPlan


@click.command()
@click.argument("model")
@click.option("--name", help="Serve it under this name instead of the registered model's.")
@click.option(
    "--env",
    type=click.Choice(["ours", "model"]),
    help="Export with the packages that are installed here, or with those that the model asks for.",
)
@click.option(
    "--unapproved",
    is_flag=True,
    help="Serve it although it lacks a tag or metric that tritonpipe.toml requires.",
)
@dry_run_option
@json_option
def promote(
    model: str,
    name: str | None,
    env: str | None,
    unapproved: bool,  # noqa: FBT001
    dry_run: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
) -> None:
    """Serve a model version: export, check, publish, confirm.

    MODEL is NAME@ALIAS, NAME/VERSION, or NAME for the default alias (TRITONPIPE_ALIAS, champion);
    models:/NAME@ALIAS and models:/NAME/VERSION mean the same. An alias that tritonpipe.toml serves
    under a name of its own is served under that one. Unless this succeeds, what was served before
    is still served.

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
    from pipeline.registries.mlflow import MlflowRegistry
    from pipeline.settings import load_settings
    from pipeline.watch.approval import named, require_approved
    from pipeline.watch.rules import rule_of

    configuration = load_configuration(load_settings())
    alias = configuration.settings_of(None).alias
    request = request_from_text(model, alias=alias, triton_name=name)
    settings = configuration.settings_of(configuration.table_of(request.model))
    rule = rule_of(configuration, request.model)
    request = named(request, rule)
    if not unapproved:
        require_approved(request, rule, lambda: MlflowRegistry(settings.required("tracking_uri")))
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

    MODEL is its name, or NAME/VERSION for a kept release, as with --to. This is one write, without
    an export. The alias in MLflow stays where it is; move it there if
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
    model, version = release_from_text(model, command="rollback")
    if version is not None and to not in {None, version}:
        raise RequestError(f"{model}/{version} and --to {to} name two releases", hint="name one")
    to = version or to
    if dry_run:
        plan = plan_rollback(model, settings, to=to)
        emit(
            plan,
            as_json=as_json,
            human=lambda: print_line(
                f"{plan.model}: version {plan.version} would be served instead of {plan.previous}"
            ),
        )
        return
    result = run_rollback(model, settings, to=to, progress=StageLog())
    emit(
        result,
        as_json=as_json,
        human=lambda: print_line(
            f"{result.plan.model}: version {result.plan.version} is served again "
            f"instead of {result.plan.previous}"
        ),
    )


def print_plan(plan: PublishPlan) -> None:
    """Print a plan, one line for each object and each change for clients."""
    for part in plan.parts:
        print_plan(part)
    if replace(plan, parts=()).is_empty:
        print_line(f"{plan.model}/{plan.version} is published and committed: nothing to do")
        return
    for key in plan.deletes:
        print_line(f"delete  {key}  (left behind by a publication that never committed)")
    for file in plan.uploads:
        print_line(f"upload  {plan.model}/{plan.version}/{file.path}  {file.size} bytes")
    if plan.signed:
        print_line(f"upload  {plan.model}/{plan.version}/manifest.json.sig")
    if plan.commit:
        before = "nothing" if plan.previous is None else f"version {plan.previous}"
        print_line(f"commit  {plan.model}/config.pbtxt  version {plan.version} instead of {before}")
    for change in plan.client_changes:
        print_line(f"warning {change}")
