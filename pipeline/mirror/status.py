"""What the mirror is doing, as values: for ``--json``, for metrics, and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelStatus:
    """One model.

    Attributes:
        name: Of the Triton model.
        serving: The versions that the local config names; none if it is not in place.
        versions: The versions that are in place.
        reason: Why it is not what the store says: ``refused``, ``denied``, ``unavailable`` or
            ``disk``, or ``load`` if Triton does not load it; empty if it is, or is worked on.
        problem: The same in words.
    """

    name: str
    serving: tuple[int, ...]
    versions: tuple[int, ...]
    reason: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorStatus:
    """The whole mirror.

    Attributes:
        url: The repository in the store.
        repository: The local one, for Triton.
        last_success: When a listing was last taken, in seconds since 1970; None for never.
        seconds_behind: For how long the local repository has differed from the store, as far as is
            known; also counts while the store cannot be listed. What is refused does not count.
        problem: Why the last listing was not taken; empty if it was.
        failures: How often something failed, by reason.
        requests: Requests to the store, by kind.
        bytes: Bytes downloaded.
        free_bytes: Space left for the local repository.
        loads: Loads that Triton was asked for, by outcome; empty where it polls.
        models: Every model, in place or wanted.
    """

    url: str
    repository: Path
    last_success: float | None
    seconds_behind: float
    problem: str
    failures: Mapping[str, int]
    requests: Mapping[str, int]
    bytes: int
    free_bytes: int
    models: tuple[ModelStatus, ...]
    loads: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_current(self) -> bool:
        """Whether the local repository is what the store says."""
        return not self.problem and not any(model.reason for model in self.models)
