"""Where models are registered, and where the wish is read and the outcome recorded.

The alias is the wish: it is resolved to a version at once and travels no further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.artifacts import ModelVersion, PromotionRequest, SourceModel


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """A registered model and where its aliases point."""

    name: str
    aliases: Mapping[str, int]


class Registry(Protocol):
    """A model registry.

    Every method raises ``UnavailableError`` if the registry does not answer.
    """

    def registered_models(self) -> list[RegisteredModel]:
        """All registered models, by name."""

    def resolve(self, request: PromotionRequest) -> ModelVersion:
        """The version that is asked for.

        Raises:
            RequestError: No such model, version or alias, or the version is not READY; names those
                that exist.
        """

    def fetch(self, version: ModelVersion, destination: Path) -> SourceModel:
        """Download the artifacts into ``destination``.

        Raises:
            ModelError: The artifacts are missing or their ``MLmodel`` cannot be read.
        """

    def record(
        self, version: ModelVersion, *, tags: Mapping[str, str], report: Mapping[str, str]
    ) -> None:
        """Set tags on the version and keep the report, text by file name, beside its run.

        A version without a run gets the tags only.
        """
