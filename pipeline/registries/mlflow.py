"""The MLflow model registry, through MLflow's own client."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from pipeline.artifacts import ModelVersion, PromotionRequest, SourceModel
from pipeline.errors import ModelError, RequestError, UnavailableError
from pipeline.manifest import digest_folder, digest_of_files
from pipeline.registries import REPORTS, RegisteredModel, Run, has_tags
from pipeline.registries.fetched import flavors_of_fetched
from pipeline.registries.mlflow_filters import filter_of
from pipeline.registries.mlflow_runs import run_of

_log = logging.getLogger(__name__)

_CLIENT_SETTINGS: Final = {
    # MLflow's own defaults keep a command waiting for minutes when the server is down.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_WRITTEN_BY_DOWNLOAD: Final = "registered_model_meta"
_NOT_FOUND: Final = "RESOURCE_DOES_NOT_EXIST"
_INVALID: Final = "INVALID_PARAMETER_VALUE"


class MlflowRegistry:
    """A :class:`pipeline.registries.Registry` on an MLflow tracking server."""

    def __init__(self, tracking_uri: str) -> None:
        for name, value in _CLIENT_SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        self.tracking_uri = tracking_uri
        self.address = _without_credentials(tracking_uri)
        self.client: Any = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    def registered_models(self) -> list[RegisteredModel]:
        """All registered models, by name; aliases come with the same requests."""
        found = [_registered_model(m) for m in self._all(self.client.search_registered_models)]
        return sorted(found, key=lambda model: model.name)

    def resolve(self, request: PromotionRequest) -> ModelVersion:
        """The version that is asked for; see the protocol."""
        filter_of(request.model)  # or nothing that is recorded of it could be found again
        model = self.registered_model(request.model)
        number = request.version
        if request.alias is not None:
            number = model.aliases.get(request.alias)
            if number is None:
                raise RequestError(
                    f"registered model {request.model!r} has no alias {request.alias!r}; "
                    f"it has {_listed(sorted(model.aliases)) or 'no alias'}",
                    hint=f"set the alias in MLflow, or name a version: {request.model}/VERSION",
                )
        found = self._version(request.model, int(number or 0))
        if found.status != "READY":
            raise RequestError(
                f"version {request.model}/{number} is not READY but {found.status}",
                hint="wait until its registration is finished, or register it again",
            )
        return _model_version(found, model.tags)

    def fetch(self, version: ModelVersion, destination: Path) -> SourceModel:
        """Download the artifacts into ``destination``; see the protocol."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            with self.answering(), _registry_uri(self.tracking_uri):
                folder = download_artifacts(
                    artifact_uri=f"models:/{version.name}/{version.version}",
                    dst_path=str(destination),
                    tracking_uri=self.tracking_uri,
                )
        except (OSError, MlflowException) as error:
            raise ModelError(
                f"the artifacts of {version} cannot be fetched: {error}",
                hint="look at the version's artifacts in the MLflow UI; log the model again if "
                "they are gone",
            ) from error
        # Names the version that was asked for: no part of the artifacts, which copies share.
        Path(folder, _WRITTEN_BY_DOWNLOAD).unlink(missing_ok=True)
        return _source_model(version, Path(folder))

    def tags_now(self, version: ModelVersion) -> Mapping[str, str] | None:
        """The tags of the version at this moment; see the protocol."""
        from mlflow.exceptions import MlflowException

        try:
            with self.answering():
                found = self.client.get_model_version(version.name, str(version.version))
        except MlflowException:
            return None
        return dict(found.tags)

    def record(self, version: ModelVersion, tags: Mapping[str, str | None]) -> None:
        """Set and remove tags of the version; see the protocol."""
        from mlflow.exceptions import MlflowException

        target = (version.name, str(version.version))
        for key, value in tags.items():
            try:
                with self.answering():
                    if value is None:
                        self.client.delete_model_version_tag(*target, key)
                    else:
                        self.client.set_model_version_tag(*target, key, value)
            except MlflowException as error:
                _log.warning("tag %s of %s cannot be recorded: %s", key, version, error)
                if error.error_code == _NOT_FOUND:
                    return

    def keep_report(self, version: ModelVersion, folder: str, report: Mapping[str, str]) -> bool:
        """Keep a report beside the version's run; see the protocol."""
        if version.run_id is None:
            return False
        with tempfile.TemporaryDirectory() as local:
            for name, text in report.items():
                # What is no text in a model's names shall not be the end of its report.
                Path(local, name).write_text(text, encoding="utf-8", errors="replace")
            try:
                with self.answering():
                    self.client.log_artifacts(version.run_id, local, f"{REPORTS}/{folder}")
            except UnavailableError:
                raise
            except Exception as error:  # noqa: BLE001  of whatever store keeps the artifacts
                _log.warning("the report of %s cannot be kept: %s", version, error)
                return False
        return True

    def tagged_versions(
        self, name: str | None, tags: Mapping[str, str | None]
    ) -> list[ModelVersion]:
        """Versions that have all these tags; see the protocol."""
        terms = filter_of(name, tags)
        found = self._all(self.client.search_model_versions, filter_string=terms)
        # Some databases compare without regard to case.
        return [
            _model_version(version)
            for version in found
            if name in {None, version.name} and has_tags(version.tags, tags)
        ]

    def run(self, run_id: str) -> Run | None:
        """The run, or None if it was deleted."""
        from mlflow.exceptions import MlflowException

        try:
            with self.answering():
                found = self.client.get_run(run_id)
                experiment = self.client.get_experiment(found.info.experiment_id)
        except MlflowException:
            return None
        return run_of(found, experiment.name, self.address)

    def registered_model(self, name: str) -> RegisteredModel:
        """One registered model; see the protocol."""
        from mlflow.exceptions import MlflowException

        try:
            with self.answering():
                return _registered_model(self.client.get_registered_model(name))
        except MlflowException as error:
            if error.error_code not in {_NOT_FOUND, _INVALID}:
                raise
            names = [model.name for model in self.registered_models()]
            alike = get_close_matches(name, names, n=1)
            raise RequestError(
                f"there is no registered model {name!r} at {self.address}; "
                f"there is {_listed(names) or 'none yet'}",
                hint=f"did you mean {alike[0]!r}?"
                if alike
                else "register it first: mlflow.<flavor>.log_model(..., registered_model_name=...)",
            ) from error

    def _version(self, name: str, number: int) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            with self.answering():
                return self.client.get_model_version(name, str(number))
        except MlflowException as error:
            if error.error_code not in {_NOT_FOUND, _INVALID}:
                raise
            numbers = sorted(version.version for version in self.tagged_versions(name, {}))
            raise RequestError(
                f"registered model {name!r} has no version {number}; "
                f"it has {_listed([str(n) for n in numbers]) or 'none'}",
                hint=f"name one that exists: {name}/VERSION",
            ) from error

    def _all(self, search: Callable[..., Any], **options: Any) -> list[Any]:
        """Everything that a search finds, page by page."""
        found: list[Any] = []
        token: str | None = None
        while True:
            with self.answering():
                page = search(max_results=1000, page_token=token, **options)
            found += page
            token = page.token
            if not token:
                return found

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Turn "no connection" and "internal error" into an error that says to try again."""
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            yield
        except (MlflowException, RequestException) as error:
            code = getattr(error, "error_code", "")
            if code in {_NOT_FOUND, _INVALID}:
                raise
            text = str(error).splitlines()[0].replace(self.tracking_uri, self.address)
            raise UnavailableError(
                f"MLflow at {self.address} does not answer: {text}",
                hint="check MLFLOW_TRACKING_URI and that the server is up, then run again",
            ) from error


def _model_version(found: Any, model_tags: Mapping[str, str] | None = None) -> ModelVersion:
    return ModelVersion(
        name=found.name,
        version=int(found.version),
        run_id=found.run_id or None,
        source=found.source,
        tags=dict(found.tags),
        model_tags=dict(model_tags or {}),
    )


def _registered_model(model: Any) -> RegisteredModel:
    aliases = model.aliases or {}
    return RegisteredModel(
        name=model.name,
        aliases={alias: int(version) for alias, version in aliases.items()},
        tags=dict(model.tags or {}),
    )


@contextmanager
def _registry_uri(uri: str) -> Iterator[None]:
    """Make this the registry that ``models:/`` means: MLflow takes no argument for it."""
    import mlflow

    before = mlflow.get_registry_uri()
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        # One that follows the tracking server shall go on doing so.
        mlflow.set_registry_uri("" if before == mlflow.get_tracking_uri() else before)


def _source_model(version: ModelVersion, folder: Path) -> SourceModel:
    flavors = flavors_of_fetched(folder, str(version))
    return SourceModel(
        version=version,
        path=folder,
        flavors=flavors,
        digest=digest_of_files(digest_folder(folder)),
    )


def _without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    if parts.username is None and parts.password is None:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[1]))


def _listed(names: list[str], limit: int = 20) -> str:
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
