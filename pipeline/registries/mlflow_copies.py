"""Versions that are copied from one registered model to another, in one MLflow or between two."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.artifacts import ModelVersion
from pipeline.errors import ModelError
from pipeline.manifest import digest_folder
from pipeline.registries.mlflow import MlflowRegistry

_EXPERIMENT: Final = "tritonpipe copies"


class MlflowCopies:
    """The registry that copies are put into.

    Every method raises ``UnavailableError`` if it does not answer.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.registry = MlflowRegistry(tracking_uri)
        self._client: Any = self.registry.client

    def copied(self, name: str, tags: Mapping[str, str]) -> ModelVersion | None:
        """The version that an earlier copy has made; the newest one of several."""
        found = self.registry.tagged_versions(name, tags)
        return max(found, key=lambda version: version.version, default=None)

    def copy(self, version: ModelVersion, name: str, tags: Mapping[str, str]) -> int:
        """A new version of ``name`` in the same MLflow, with the same artifacts; its number."""
        with self.registry.answering():
            made = self._client.copy_model_version(
                f"models:/{version.name}/{version.version}", name
            )
            # MLflow copies all tags, also those that are true of the original alone.
            for key in made.tags.keys() - version.tags.keys():
                self._client.delete_model_version_tag(name, made.version, key)
            self._tag(name, made.version, {**version.tags, **tags})
        return int(made.version)

    def register(
        self, version: ModelVersion, folder: Path, name: str, tags: Mapping[str, str]
    ) -> int:
        """A new version of ``name`` with the artifacts in a folder; its number.

        They are logged with a run of their own, since runs of another MLflow are not in this one,
        and read back before the version is made.

        Raises:
            ModelError: What was read back is not what was sent.
        """
        with self.registry.answering():
            run = self._client.create_run(self._experiment(), run_name=str(version))
            for key, value in tags.items():
                self._client.set_tag(run.info.run_id, key, value)
            self._client.log_artifacts(run.info.run_id, str(folder), "model")
            with tempfile.TemporaryDirectory(prefix="tritonpipe-copy-") as back:
                found = self._client.download_artifacts(run.info.run_id, "model", back)
                if digest_folder(Path(found)) != digest_folder(folder):
                    raise ModelError(
                        f"the artifacts of {version} did not arrive whole at "
                        f"{self.registry.address}",
                        hint="run the command again; nothing was registered",
                    )
            self._client.set_terminated(run.info.run_id)
            source = f"{run.info.artifact_uri}/model"
            self._make_model(name)
            made = self._client.create_model_version(name, source, run_id=run.info.run_id)
            self._tag(name, made.version, {**version.tags, **tags})
        return int(made.version)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version."""
        with self.registry.answering():
            self._client.set_registered_model_alias(name, alias, str(version))

    def _tag(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(name, version, key, value)

    def _make_model(self, name: str) -> None:
        if name not in {model.name for model in self.registry.registered_models()}:
            self._client.create_registered_model(name)

    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(_EXPERIMENT)
        return str(found.experiment_id if found else self._client.create_experiment(_EXPERIMENT))
