"""``tritonpipe copy``: from one environment to the next."""

from __future__ import annotations

import click

from pipeline.cli.output import StageLog, emit, json_option, print_line
from pipeline.cli.references import request_from_text


@click.command()
@click.argument("source")
@click.argument("name")
@click.option("--alias", default="", help="Set on the copy, last: then `watch` serves it.")
@click.option("--to", default="", help="URI of another MLflow server; default: the same one.")
@json_option
def copy(source: str, name: str, alias: str, to: str, as_json: bool) -> None:  # noqa: FBT001
    """Copy a version into another registered model or MLflow.

    SOURCE is NAME@ALIAS or NAME/VERSION. The copy has the same artifacts, byte for byte, the tags
    of its author, and a tag that says where it comes from. Copied twice is copied once.

    \b
    Examples:
      tritonpipe copy dev.fraud@champion prod.fraud --alias champion
      tritonpipe copy fraud/7 fraud --to https://mlflow.prod.example.org
    """
    from pipeline.configuration import effective_settings
    from pipeline.flows.copy_version import copy_version

    settings = effective_settings()
    request = request_from_text(source, alias=settings.alias)
    found = copy_version(request, name, settings, alias=alias, to=to, progress=StageLog())
    verb = "copied to" if found.is_new else "was copied before to"
    emit(
        found,
        as_json=as_json,
        human=lambda: print_line(f"{found.source} {verb} {found.name}/{found.version}"),
    )
