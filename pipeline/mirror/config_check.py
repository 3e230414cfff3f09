"""Whether a manifest vouches for a config: what is served is bound to what was published.

The digest in a manifest is that of the config that names exactly this version. While a release of
several models switches, a config may name two versions, and an ensemble the versions of its steps;
such a config is accepted if only those numbers differ from what was published.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import product
from typing import Final

from pipeline.ensembles import NEWEST, pinned, steps_of
from pipeline.model_config import served_versions, with_versions

_MOST_PINNED: Final = 10
"""Steps of one ensemble that a switch may have pinned: each one doubles what is tried."""


def named_versions(text: str) -> tuple[int, ...]:
    """The versions that a config names, ascending.

    Raises:
        ValueError: Not a config, or its policy does not name versions.
    """
    versions = served_versions(text)
    if not versions:
        raise ValueError("its version policy names no version")
    return tuple(sorted(set(versions)))


def is_vouched_for(text: str, config_sha256: Mapping[int, str]) -> bool:
    """Whether a config is the published one of a version, but for the versions that it names.

    Two versions beside each other share the config of the one that shall be served in the end,
    which is the lower one on the way back.

    Args:
        text: The config, possibly of a release that is just switching.
        config_sha256: What the manifests say, by version that the config names.
    """
    return any(_is_of(text, version, digest) for version, digest in config_sha256.items())


def _is_of(text: str, version: int, digest: str) -> bool:
    if _digest(text) == digest:
        return True
    alone = with_versions(text, [version])
    # Some steps may have been published with the version that they name, others not.
    fixed = sorted({step.model for step in steps_of(alone) if step.version != NEWEST})
    choices = product((False, True), repeat=min(len(fixed), _MOST_PINNED))
    return any(
        _digest(pinned(alone, {m: NEWEST for m, free in zip(fixed, choice, strict=False) if free}))
        == digest
        for choice in choices
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
