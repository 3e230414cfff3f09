"""What of the settings ends up in ``config.pbtxt``, and what a config was made with.

A version keeps the config that it was first published with, so settings and tags that change later
hold from the next version on; here it is told where the two differ.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from pipeline.model_config import ServingOptions, config_from_text
from pipeline.settings import Settings

OPTIONS: Final = (
    "max_batch_size",
    "preferred_batch_sizes",
    "max_queue_delay_microseconds",
    "instances",
    "device",
)
"""What ends up in ``config.pbtxt``; fixed when a version is first published."""


def serving_options(settings: Settings) -> ServingOptions:
    """The part of the settings that ends up in ``config.pbtxt``."""
    return ServingOptions(**{name: getattr(settings, name) for name in OPTIONS})


def differences(config: str, settings: Settings, names: Collection[str] = OPTIONS) -> list[str]:
    """Which of these options a config has otherwise than the settings, with what it has.

    A model without batching has none of those of batching, whatever was wished.

    Args:
        config: The text of ``config.pbtxt``.
        settings: What is wished.
        names: The options to compare.
    """
    found = _made_with(config)
    return [
        f"{name} {shown(found[name])} (not {shown(wished)})"
        for name in OPTIONS
        if name in names and name in found and found[name] != (wished := _wished(settings, name))
    ]


def _made_with(text: str) -> dict[str, Any]:
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


def shown(value: Any) -> str:
    """The value of a setting, as a tag or a variable has it."""
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
