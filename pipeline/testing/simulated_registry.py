"""A registry in memory, every call to which is a step that can be broken or overtaken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from pipeline.artifacts import ModelVersion, PromotionRequest
from pipeline.errors import RequestError
from pipeline.registries import Run, has_tags


class SimulatedRegistry:
    """Versions with their tags and reports.

    Args:
        step: Called before each request; what it raises, the request raises.

    Attributes:
        versions: By name and number.
        reports: Text by run, folder and file name, as ``RUN/FOLDER/FILE``.
    """

    def __init__(self, step: Callable[[], None] = lambda: None) -> None:
        self.step = step
        self.versions: dict[tuple[str, int], ModelVersion] = {}
        self.reports: dict[str, str] = {}

    def register(self, name: str, version: int, tags: Mapping[str, str] | None = None) -> None:
        """Add a version; no step."""
        self.versions[name, version] = ModelVersion(
            name=name, version=version, run_id=f"run-{version}", source="s", tags=dict(tags or {})
        )

    def tags(self, name: str, version: int) -> dict[str, str]:
        """The tags of a version; no step."""
        return dict(self.versions[name, version].tags)

    def resolve(self, request: PromotionRequest) -> ModelVersion:
        """A version that is named by its number; a step."""
        self.step()
        try:
            return self.versions[request.model, request.version or 0]
        except KeyError:
            raise RequestError(f"there is no {request}") from None

    def tags_now(self, version: ModelVersion) -> Mapping[str, str] | None:
        """As in the protocol; a step."""
        self.step()
        found = self.versions.get((version.name, version.version))
        return found.tags if found else None

    def record(self, version: ModelVersion, tags: Mapping[str, str | None]) -> None:
        """As in the protocol; a step for each tag."""
        key = (version.name, version.version)
        for name, value in tags.items():
            self.step()
            if key in self.versions:
                kept = {k: v for k, v in self.versions[key].tags.items() if k != name}
                changed = kept if value is None else {**kept, name: value}
                self.versions[key] = replace(self.versions[key], tags=changed)

    def keep_report(self, version: ModelVersion, folder: str, report: Mapping[str, str]) -> bool:
        """As in the protocol; a step."""
        self.step()
        for name, text in report.items():
            self.reports[f"{version.run_id}/{folder}/{name}"] = text
        return version.run_id is not None

    def run(self, run_id: str) -> Run | None:
        """A run with a page; a step."""
        self.step()
        return Run(
            run_id=run_id,
            name="",
            experiment="",
            user="",
            started="",
            parameters={},
            metrics={},
            page=f"http://registry/{run_id}",
        )

    def tagged_versions(
        self, name: str | None, tags: Mapping[str, str | None]
    ) -> list[ModelVersion]:
        """As in the protocol; a step."""
        self.step()
        return [
            version
            for version in self.versions.values()
            if name in {None, version.name} and has_tags(version.tags, tags)
        ]
