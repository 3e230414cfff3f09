"""A version is served as it was first published: other options for it are refused, not ignored."""

from __future__ import annotations

from typing import Any

from pipeline.deployments.options import SERVING
from pipeline.errors import ConflictError
from pipeline.flows.parts import recorded_parts
from pipeline.flows.publish import read_state
from pipeline.flows.release import reusable_release
from pipeline.flows.servers import open_servers
from pipeline.model_config import config_from_text
from pipeline.settings import Settings


def refuse_other_options(
    name: str, version: int, settings: Settings, serving: frozenset[str]
) -> None:
    """Return unless the version is on record with other serving options than the call names.

    Args:
        name: The Triton model.
        version: Its version.
        settings: What is wished.
        serving: The options that the call names.

    Raises:
        ConflictError: Names what differs.
    """
    if not serving:
        return
    with open_servers(settings) as servers:
        state = read_state(servers.repository, name)
        kept = reusable_release(servers, state, version)
        if kept is None:
            return
        # Of a model in several parts, the last one computes.
        configs = [part.release.config for part in recorded_parts(servers, kept[0])]
    differs = differences((configs or [kept[0].config])[-1], settings, serving)
    if differs:
        raise ConflictError(
            f"{name}/{version} was published with {', '.join(differs)}, and a version never "
            "changes",
            hint="register the model as a new version and deploy that with other options; or "
            "leave them out",
        )


def differences(config: str, settings: Settings, names: frozenset[str]) -> list[str]:
    """Which of these options a config has otherwise than the settings, with what it has.

    A model without batching has none of those of batching, whatever was wished.
    """
    found = serving_options_of(config)
    return [
        f"{name} {_shown(found[name])} (not {_shown(wished)})"
        for name in SERVING
        if name in names and name in found and found[name] != (wished := _wished(settings, name))
    ]


def serving_options_of(text: str) -> dict[str, Any]:
    """The serving options that a config of ours was made with."""
    config = config_from_text(text)
    group = config.instance_group[0] if config.instance_group else None
    found: dict[str, Any] = {}
    if group is not None:
        found["instances"] = group.count
        found["device"] = "gpu" if group.kind == group.KIND_GPU else "cpu"
    if config.max_batch_size:
        batching = config.dynamic_batching
        found["max_batch_size"] = config.max_batch_size
        found["preferred_batch_sizes"] = tuple(batching.preferred_batch_size)
        found["max_queue_delay_microseconds"] = batching.max_queue_delay_microseconds
    return found


def _wished(settings: Settings, name: str) -> Any:
    if name == "preferred_batch_sizes":
        sizes = settings.preferred_batch_sizes
        return tuple(sorted(size for size in sizes if size <= settings.max_batch_size))
    return getattr(settings, name)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
