"""``tritonpipe config check | show``: what ``tritonpipe.toml`` says, and what holds."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.output import emit, json_option, say, table

config_option = click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file; default: TRITONPIPE_CONFIG, or tritonpipe.toml if it is there.",
)


@click.group()
def config() -> None:
    """Show which models are served and how, and who says so."""


@config.command()
@config_option
@json_option
def check(file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Read the file and say what is wrong with it; asks no server.

    \b
    Examples:
      tritonpipe config check
      tritonpipe config check --config staging.toml
    """
    from pipeline.configuration import load_configuration
    from pipeline.settings import load_settings

    found = load_configuration(load_settings(), file)

    def human() -> None:
        if found.path is None:
            say("there is no tritonpipe.toml here; every model is served with the settings alone")
            return
        rows = [
            [
                t.pattern,
                ", ".join(f"{a} as {n}" for a, n in (t.serve or {}).items())
                if t.watch and t.serve
                else ("the default alias" if t.watch else "left alone"),
                ", ".join(
                    [f"{k}={v}" for k, v in t.requires.items()]
                    + [f"{name} {bound.text}" for name, bound in t.metrics.items()]
                ),
                ", ".join(f"{k}={v}" for k, v in t.settings.items()),
            ]
            for t in found.models
        ]
        click.echo(f"{found.path} is right")
        if rows:
            table(["models", "served", "required", "settings"], rows)

    document = {"path": found.path, "defaults": _plain(found.defaults), "models": len(found.models)}
    emit(document, as_json=as_json, human=human)


@config.command()
@click.argument("model")
@config_option
@json_option
def show(model: str, file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Show what holds for a registered model, and where each value comes from.

    \b
    Examples:
      tritonpipe config show fraud
    """
    from pipeline.configuration import load_configuration
    from pipeline.settings import load_settings

    configuration = load_configuration(load_settings(), file)
    found = configuration.table_of(model)
    settings = configuration.settings_of(found).model_dump(mode="json")
    origins = configuration.origins_of(found)
    rows = [[name, settings[name], origins[name]] for name in sorted(settings)]

    def human() -> None:
        say(
            f"no table is about {model!r}"
            if found is None
            else f'[models."{found.pattern}"] is about {model!r}'
        )
        table(["setting", "value", "from"], rows)

    document = {
        "table": found.pattern if found else None,
        "settings": {name: {"value": value, "from": origin} for name, value, origin in rows},
    }
    emit(_plain(document), as_json=as_json, human=human)


def _plain(value: object) -> object:
    """What a file or the settings hold, as JSON has it: anything that is not is told as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
