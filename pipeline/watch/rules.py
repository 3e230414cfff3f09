"""How registered models are looked after, from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from pipeline.configuration import Configuration, ModelTable
from pipeline.served_names import OWN
from pipeline.watch.wishes import Rule


def rules_of(configuration: Configuration, *, alias: str = "") -> tuple[Rule, ...]:
    """The rules of its tables, and a last one for all models that it has no table for.

    Args:
        configuration: From the file and the environment.
        alias: The alias of models whose table names none; by default that of the settings.
    """
    settings = configuration.settings_of(None)
    serve = {alias or settings.alias: OWN}
    tables = (_rule(configuration, table, serve) for table in configuration.models)
    return (*tables, Rule(serve=serve, settings=settings))


def rule_of(configuration: Configuration, name: str) -> Rule:
    """The rule that counts for one registered model, whatever its tags are."""
    rules = rules_of(configuration)
    return next(rule for rule in rules if any(fnmatchcase(name, each) for each in rule.names))


def _rule(configuration: Configuration, table: ModelTable, serve: Mapping[str, str]) -> Rule:
    return Rule(
        serve=(table.serve or serve) if table.watch else {},
        settings=configuration.settings_of(table),
        names=(table.pattern,),
        requires=table.requires,
        metrics=table.metrics,
    )
