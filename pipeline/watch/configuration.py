"""What a watcher looks after, from settings and options."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from pipeline.flows.export_cache import tools_fingerprint
from pipeline.settings import Settings
from pipeline.watch.difference import Policy
from pipeline.watch.rounds import DEFAULT_EXPORTS, Plan
from pipeline.watch.wishes import Rule

_DECIDING: Final = frozenset(
    {
        "relative_tolerance", "absolute_tolerance", "allowed_row_fraction", "max_batch_size",
        "device", "isolation", "export_seconds", "sign", "instances", "preferred_batch_sizes",
    }
)  # fmt: skip
"""Settings that can decide whether a version is refused."""


def plan_from_options(
    settings: Settings,
    *,
    alias: str,
    names: tuple[str, ...],
    tags: Mapping[str, str],
    policy: Policy,
    exports: int | None = None,
) -> Plan:
    """One rule for all models that fit, each served under its own name."""
    rule = Rule(serve={alias: "{model}"}, names=names, tags=tags)
    return Plan(
        rules=(rule,),
        policy=policy,
        settings_for=lambda _model: settings,
        conditions=lambda _model: conditions_of(settings),
        exports=exports or DEFAULT_EXPORTS,
    )


def conditions_of(settings: Settings) -> str:
    """Settings and tools that decide whether a version can be served."""
    deciding = settings.model_dump(mode="json", include=set(_DECIDING))
    return json.dumps([deciding, tools_fingerprint()], sort_keys=True)
