"""What the URIs that MLflow users write stand for: versions, runs and logged models.

Only a registered version is ever deployed, since only that has a number that is never used again.
Guarantees: of a model's files nothing but ``MLmodel`` is read to describe it.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.artifacts import ModelVersion, PromotionRequest
from pipeline.errors import ModelError, RequestError
from pipeline.registries.fetched import MLMODEL, expect_sane_files, flavors_of_fetched
from pipeline.registries.mlflow import MlflowRegistry

_ID: Final = "[0-9a-f]{32}"
_REGISTERED: Final = re.compile(
    r"models:/(?P<name>[^/]+)(@(?P<alias>[^/@]+)|/(?P<version>[1-9][0-9]{0,17}))"
)
_LOGGED: Final = re.compile(rf"models:/(?P<id>m-{_ID})/?")
_RUN: Final = re.compile(rf"runs:/(?P<id>{_ID})/(?P<path>[^/].*?)/?")
_FORMS: Final = "models:/NAME@ALIAS or models:/NAME/VERSION"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUri:
    """What a URI names: a version, a logged model, or a model of a run; exactly one of them.

    Attributes:
        text: As it was written.
        request: A registered model with an alias or a version.
        model_id: ID of a logged model, ``m-…``.
        run_id: ID of a run …
        path: … and where the model is among its artifacts.
    """

    text: str
    request: PromotionRequest | None = None
    model_id: str = ""
    run_id: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedModel:
    """What ``MLmodel`` says of a version.

    Attributes:
        flavors: Its flavors; none for files that were registered without an ``MLmodel``.
        columns: Names of the inputs in its signature, in order; none without names.
    """

    flavors: tuple[str, ...]
    columns: tuple[str, ...]


def model_uri_from_text(text: str) -> ModelUri:
    """Read a model URI.

    Raises:
        RequestError: It names no model, or one that may be another tomorrow.
    """
    if match := _LOGGED.fullmatch(text):
        return ModelUri(text=text, model_id=match["id"])
    if match := _RUN.fullmatch(text):
        return ModelUri(text=text, run_id=match["id"], path=match["path"])
    if match := _REGISTERED.fullmatch(text):
        version = int(match["version"]) if match["version"] else None
        request = PromotionRequest(model=match["name"], alias=match["alias"], version=version)
        return ModelUri(text=text, request=request)
    name, _, wanted = text.removeprefix("models:/").partition("/")
    if text.startswith("models:/") and name and wanted and "/" not in wanted:
        raise RequestError(
            f"{text!r} names no version: {wanted!r} is neither a number nor an alias",
            hint=f'stages are deprecated in MLflow, and "latest" moves by itself: set an alias on '
            f"the version and write models:/{name}@ALIAS, or write models:/{name}/VERSION",
        )
    raise RequestError(
        f"{text!r} names no version of a registered model",
        hint=f"write {_FORMS}; a model that is not registered yet: "
        f'mlflow.register_model("runs:/RUN_ID/PATH", "NAME")',
    )


class MlflowModels(MlflowRegistry):
    """The registry, asked in the words of MLflow's users."""

    def version_of(self, uri: ModelUri, *, preferred: str) -> ModelVersion:
        """The registered version that a URI stands for.

        Args:
            uri: What it names.
            preferred: The registered model that is meant where the same files are registered under
                several names.

        Raises:
            RequestError: There is none, or several names have it.
        """
        if uri.request is not None:
            return self.resolve(uri.request)
        found = self._ready_versions(uri)
        names = sorted({version.name for version in found})
        if len(names) > 1 and preferred not in names:
            raise RequestError(
                f"{uri.text} is registered as {', '.join(names)}",
                hint=f"say which: {_FORMS}",
            )
        meant = [v for v in found if v.name == preferred or len(names) == 1]
        if not meant:
            raise RequestError(
                f"{uri.text} is not registered, and only registered versions are deployed",
                hint=f'register it: mlflow.register_model("{uri.text}", "{preferred}"), then '
                f"deploy models:/{preferred}/VERSION",
            )
        return max(meant, key=lambda version: version.version)

    def describe(self, version: ModelVersion) -> DescribedModel:
        """Flavors and columns of a version.

        Raises:
            ModelError: Its ``MLmodel`` cannot be read.
            UnavailableError: The registry does not answer.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.models import Model

        with tempfile.TemporaryDirectory(prefix="tritonpipe-") as folder:
            if not self._download(version, folder, MLMODEL):
                return DescribedModel(flavors=(), columns=())
            flavors = flavors_of_fetched(Path(folder), str(version))
            try:
                schema = Model.load(folder).get_input_schema()
            except (MlflowException, ValueError, TypeError, LookupError, AttributeError) as error:
                raise ModelError(
                    f"the signature of {version} cannot be read: {error}",
                    hint="log the model again and register that",
                ) from error
        has_names = schema is not None and schema.has_input_names()
        names = schema.input_names() if has_names else ()
        return DescribedModel(flavors=flavors, columns=tuple(str(name) for name in names))

    def fetch_files(self, version: ModelVersion, destination: Path) -> None:
        """Download everything into an empty folder, whether or not there is an ``MLmodel``.

        Raises:
            ModelError: The files are missing, or not sane.
            UnavailableError: The registry does not answer.
        """
        if not self._download(version, str(destination)):
            raise ModelError(
                f"the artifacts of {version} cannot be fetched",
                hint="look at the version's artifacts in the MLflow UI",
            )
        expect_sane_files(destination, str(version))

    def _download(self, version: ModelVersion, folder: str, path: str = "") -> bool:
        """Whether the version has this file, or any; then it is in the folder."""
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            with self.answering():
                download_artifacts(
                    artifact_uri=f"models:/{version.name}/{version.version}/{path}".rstrip("/"),
                    dst_path=folder,
                    tracking_uri=self.tracking_uri,
                )
        except (OSError, MlflowException):
            return False
        return Path(folder, path).exists()

    def _ready_versions(self, uri: ModelUri) -> list[ModelVersion]:
        wanted = (
            f"source_path = 'models:/{uri.model_id}'"
            if uri.model_id
            else f"run_id = '{uri.run_id}'"
        )
        found = self._all(self.client.search_model_versions, filter_string=wanted)
        ready = [version for version in found if version.status == "READY"]
        if uri.path:
            ready = list(self._at_path(ready, uri))
        return [self.resolve(PromotionRequest(model=v.name, version=int(v.version))) for v in ready]

    def _at_path(self, versions: list[Any], uri: ModelUri) -> Iterable[Any]:
        """Those whose files lie at the path of the run, or that MLflow 3 logged by that name."""
        for version in versions:
            logged = _LOGGED.fullmatch(version.source)
            if logged is not None:
                with self.answering():
                    name = self.client.get_logged_model(logged["id"]).name
                if name == uri.path:
                    yield version
            elif version.source.rstrip("/").endswith(_places(uri)):
                yield version


def _places(uri: ModelUri) -> tuple[str, str]:
    """How the source of a version ends that was registered from this path of a run."""
    return f"/{uri.run_id}/artifacts/{uri.path}", f"runs:/{uri.run_id}/{uri.path}"
