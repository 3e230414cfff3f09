"""What a watcher looks after, from the configuration and the options of a command."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from pipeline.configuration import Configuration
from pipeline.watch.difference import Policy
from pipeline.watch.rounds import DEFAULT_EXPORTS, Plan
from pipeline.watch.rules import rules_of

WATCH: Final = ".watch"
"""Begins the name of every lead; no model has a name that begins with a dot."""


def planned(
    configuration: Configuration,
    *,
    alias: str = "",
    names: tuple[str, ...] = (),
    tags: Mapping[str, str] | None = None,
    policy: Policy | None = None,
    exports: int | None = None,
) -> Plan:
    """The plan of one watcher.

    Args:
        configuration: From the file and the environment.
        alias: The alias of models whose table names none; by default that of the settings.
        names: Patterns; only models that fit one of them are looked after.
        tags: Likewise: only models that have all of them.
        policy: What happens when an alias is removed.
        exports: How many models are exported at once.
    """
    rules = rules_of(configuration, alias=alias)
    return Plan(
        rules=rules,
        only=replace(rules[-1], names=names or ("*",), tags=tags or {}),
        base=configuration.settings_of(None),
        policy=policy or Policy(),
        exports=exports or DEFAULT_EXPORTS,
        name=_name(names, tags or {}),
    )


def _name(names: tuple[str, ...], tags: Mapping[str, str]) -> str:
    """Watchers of different models do not wait for each other."""
    if not (names or tags):
        return WATCH
    selection = json.dumps([sorted(names), sorted(tags.items())])
    return f"{WATCH}-{hashlib.sha256(selection.encode()).hexdigest()[:8]}"
