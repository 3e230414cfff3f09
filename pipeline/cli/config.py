"""``tritonpipe config check | show``: what ``tritonpipe.toml`` says, and what holds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.output import emit, json_option, print_line, say, table
from pipeline.cli.references import request_from_text
from pipeline.errors import RequestError, SettingsError, UnavailableError

if TYPE_CHECKING:
    from pipeline.artifacts import PromotionRequest
    from pipeline.configuration import Configuration
    from pipeline.flows.author_tags import Tagged
    from pipeline.settings import Settings

_SECRETS = re.compile(r"(?<=//).*(?=@)|(?<=password=)[^&]*")

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
        print_line(f"{found.path} is right")
        if rows:
            table(["models", "served", "required", "settings"], rows)

    document = {"path": found.path, "defaults": _plain(found.defaults), "models": len(found.models)}
    emit(document, as_json=as_json, human=human)


@config.command()
@click.argument("model")
@config_option
@json_option
def show(model: str, file: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Show what holds for a model, and where each value comes from.

    MODEL is NAME@ALIAS, NAME/VERSION, or NAME for the default alias. Tags of the version and of
    its registered model are asked for in MLflow; without it, the rest is shown.

    \b
    Examples:
      tritonpipe config show fraud
      tritonpipe config show fraud/7 --json
    """
    from pipeline.configuration import load_configuration
    from pipeline.flows.author_tags import Verdict, chosen_settings
    from pipeline.settings import load_settings

    configuration = load_configuration(load_settings(), file)
    asked = request_from_text(model)
    found = configuration.table_of(asked.model)
    settings, origins = configuration.settings_of(found), configuration.origins_of(found)
    places, problem = _tagged(asked, settings)
    chosen = chosen_settings(settings, places, origins=origins)
    origins |= {t.setting: f"{t.key} of {t.place}" for t in chosen.of(Verdict.COUNTS)}
    values = chosen.settings.model_dump(mode="json")
    rows = [[name, _without_secrets(values[name]), origins[name]] for name in sorted(values)]
    serving = _serving(configuration, asked.model)

    def human() -> None:
        say(
            f"no table is about {asked.model!r}"
            if found is None
            else f'[models."{found.pattern}"] is about {asked.model!r}'
        )
        table(["served", "", "from"], [[k, _shown(v), where] for k, (v, where) in serving.items()])
        click.echo()
        table(["setting", "value", "from"], [[name, _shown(v), origin] for name, v, origin in rows])
        if chosen.tags:
            click.echo()
            table(
                ["tag", "value", "of", "effect", "because"],
                [[t.key, t.value, t.place, t.verdict, t.reason] for t in chosen.tags],
            )

    document = {
        "table": found.pattern if found else None,
        "serving": {key: {"value": v, "from": where} for key, (v, where) in serving.items()},
        "settings": {name: {"value": value, "from": origin} for name, value, origin in rows},
        "tags": chosen.tags,
        "problem": problem,
    }
    emit(document, as_json=as_json, human=human)
    if problem:
        say(f"warning: {problem}")
    for tag in chosen.of(Verdict.WRONG):
        say(f"warning: no version is published with {tag}")


def _serving(configuration: Configuration, model: str) -> dict[str, tuple[Any, str]]:
    """Whether and as what a registered model is served, and what is required first."""
    from pipeline.configuration import DEFAULT
    from pipeline.served_names import name_in_triton
    from pipeline.watch.rules import rule_of

    rule = rule_of(configuration, model)
    found = configuration.table_of(model)
    where = f'{configuration.path}, [models."{found.pattern}"]' if found else DEFAULT
    serve = {alias: name_in_triton(name, model) for alias, name in rule.serve.items()}
    said = found.serve is not None or not found.watch if found else False
    return {
        "aliases": (serve or "left alone", where if said else DEFAULT),
        "requires": (dict(rule.requires), where if rule.requires else DEFAULT),
        "metrics": (
            {name: bound.text for name, bound in rule.metrics.items()},
            where if rule.metrics else DEFAULT,
        ),
    }


def _tagged(asked: PromotionRequest, settings: Settings) -> tuple[tuple[Tagged, ...], str]:
    """The version and the registered model with their tags; and why there are not both, in words.

    Raises:
        RequestError: There is no such version, and one was asked for by number or alias.
    """
    from pipeline.flows.author_tags import tagged_model, tagged_of
    from pipeline.registries.mlflow import MlflowRegistry

    is_exact = (asked.alias, asked.version) != (None, None)
    try:
        registry = MlflowRegistry(settings.required("tracking_uri"))
        if is_exact:
            return tagged_of(registry.resolve(asked)), ""
        model = registry.registered_model(asked.model)
        if settings.alias in model.aliases:
            return tagged_of(registry.resolve(replace(asked, alias=settings.alias))), ""
    except RequestError as error:
        if is_exact:
            raise
        return (), f"there are no tags: {error.message}"
    except (SettingsError, UnavailableError) as error:
        return (), f"tags are not known: {error.message}"
    problem = f"no version of {model.name!r} has the alias {settings.alias!r}: without its tags"
    return (tagged_model(model.name, model.tags),), problem


def _without_secrets(value: object) -> object:
    """Addresses without user and password: what is shown ends up in logs."""
    return _SECRETS.sub("…", value) if isinstance(value, str) else value


def _shown(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items()) or "none"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else value


def _plain(value: object) -> object:
    """What a file or the settings hold, as JSON has it: anything that is not is told as text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
