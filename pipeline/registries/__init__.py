"""Where models are registered, and where the wish is read and the outcome recorded.

The alias is the wish: it is resolved to a version at once and travels no further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

from pipeline.artifacts import ModelVersion, PromotionRequest, SourceModel

REPORTS: Final = "tritonpipe"
"""The folder of all reports among the artifacts of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredModel:
    """A registered model, where its aliases point, and its own tags."""

    name: str
    aliases: Mapping[str, int]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The run that logged a model: the far end of a release's lineage.

    Attributes:
        run_id: Identifies the run.
        name: Name of the run.
        experiment: Name of its experiment.
        user: Who ran it.
        started: When, in UTC.
        parameters: What it was run with.
        metrics: What it measured last.
        datasets: What it was trained on or tested with, as ``CONTEXT: NAME (DIGEST)``, if the run
            says so.
        page: Address of its page for people; empty if the registry has none.
    """

    run_id: str
    name: str
    experiment: str
    user: str
    started: str
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    datasets: tuple[str, ...] = ()
    page: str = ""

    def report_page(self, folder: str, file: str) -> str:
        """Where people read a file of a kept report; empty if the registry has no pages.

        Args:
            folder: As it was kept, see :meth:`Registry.keep_report`.
            file: Name of the file.
        """
        path = quote(f"{REPORTS}/{folder}/{file}")
        return f"{self.page}/artifacts/{path}" if self.page else ""


class Registry(Protocol):
    """A model registry.

    Every method raises ``UnavailableError`` if the registry does not answer.
    """

    def registered_models(self) -> list[RegisteredModel]:
        """All registered models, by name."""

    def registered_model(self, name: str) -> RegisteredModel:
        """One registered model.

        Raises:
            RequestError: There is none of this name; names those that exist.
        """

    def resolve(self, request: PromotionRequest) -> ModelVersion:
        """The version that is asked for, with the tags of its registered model.

        Raises:
            RequestError: No such model, version or alias, or the version is not READY; names those
                that exist. Or the registry could not find the model's versions by its name.
        """

    def fetch(self, version: ModelVersion, destination: Path) -> SourceModel:
        """Download the artifacts into ``destination``.

        Raises:
            ModelError: The artifacts are missing or their ``MLmodel`` cannot be read.
        """

    def tags_now(self, version: ModelVersion) -> Mapping[str, str] | None:
        """The tags of the version at this moment; None if it was deleted."""

    def record(self, version: ModelVersion, tags: Mapping[str, str | None]) -> None:
        """Set tags on the version, in their order; those that are None are removed.

        A version that was deleted meanwhile is passed over, and so is a tag that the registry
        refuses, which the log then tells.
        """

    def keep_report(self, version: ModelVersion, folder: str, report: Mapping[str, str]) -> bool:
        """Keep a report, text by file name, in a folder beside the version's run.

        Returns:
            Whether it was kept; False for a version without a run, or if the run was deleted
            meanwhile or its artifacts cannot be written, which the log then tells.
        """

    def tagged_versions(
        self, name: str | None, tags: Mapping[str, str | None]
    ) -> list[ModelVersion]:
        """Versions that have all these tags, of one registered model or, without a name, of all.

        Args:
            name: The registered model.
            tags: The value of each; None for any.
        """

    def run(self, run_id: str) -> Run | None:
        """The run, or None if it was deleted."""


def has_tags(tags: Mapping[str, str], wanted: Mapping[str, str | None]) -> bool:
    """Whether all that are wanted are among the tags, with the value that is wanted, if one is."""
    return all(key in tags and value in {None, tags[key]} for key, value in wanted.items())
