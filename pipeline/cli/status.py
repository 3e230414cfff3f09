"""``tritonpipe status``."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.config import config_option
from pipeline.cli.errors import EXIT_CODES, PROBLEMS_REMAIN
from pipeline.cli.output import emit, json_option, say, table
from pipeline.errors import UnavailableError


@click.command()
@click.argument("model", required=False)
@click.option(
    "--check", is_flag=True, help="Exit with 12 unless what is wished is published and served."
)
@config_option
@json_option
def status(model: str | None, check: bool, file: Path | None, as_json: bool) -> int:  # noqa: FBT001
    """Show what MLflow wishes, S3 holds and Triton serves.

    Which alias wishes what under which name, tritonpipe.toml says, as for watch. The exit code is 8
    if MLflow, S3 or a Triton does not answer. What differs is no failure, unless --check makes it
    one; a version that awaits approval is none.

    \b
    Examples:
      tritonpipe status
      tritonpipe status fraud --json
      tritonpipe status --check || notify-somebody
    """
    from pipeline.configuration import load_configuration
    from pipeline.settings import load_settings
    from pipeline.watch.rules import rules_of
    from pipeline.watch.status import status as read_status

    configuration = load_configuration(load_settings(), file)
    settings = configuration.settings_of(None)
    report = read_status(settings, rules_of(configuration), model=model)

    def human() -> None:
        headers = ["model", "wished", "published", "served", "release", "state"]
        rows = [
            [
                f"  {m.model}" if m.part_of else m.model,
                f"{m.wished} ({m.alias})" if m.wished is not None else "-",
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
            say("nothing is published, and no alias wishes anything")

    emit(report, as_json=as_json, human=human)
    for problem in report.problems:
        say(f"warning: {problem}")
    if not report.is_complete:
        return EXIT_CODES[UnavailableError]
    return PROBLEMS_REMAIN if check and not report.is_as_wished else 0


def _or_dash(version: int | None) -> str:
    return "-" if version is None else str(version)
