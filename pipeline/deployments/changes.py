"""Creates, updates and deletes deployments by promoting, publishing and retiring models.

Guarantees: those of a promotion: until a version has proven itself on every server, a failure
leaves or restores what was served before; a call that was killed is finished by the same call.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pipeline.artifacts import ModelVersion, PromotionRequest, SourceModel
from pipeline.deployments.deployed import (
    TRITON,
    Deployment,
    deployment_of,
    is_held,
    is_under_way,
    lineage_of,
    was_deployed,
)
from pipeline.deployments.kept import refuse_other_options
from pipeline.deployments.options import Options
from pipeline.errors import ConflictError, ModelError, RequestError
from pipeline.flows.progress import Progress, silent
from pipeline.flows.promote import promote
from pipeline.flows.retire import retire
from pipeline.flows.worker import choose_exporter
from pipeline.model_config import check_name
from pipeline.registries.mlflow_uris import MlflowModels, model_uri_from_text
from pipeline.settings import Settings


class ExistsError(ConflictError):
    """A deployment of this name is there already."""


class MissingError(RequestError):
    """There is no deployment of this name."""


def create(name: str, model_uri: str, flavor: str | None, options: Options) -> dict[str, str]:
    """Deploy a registered version under a name that is free.

    Raises:
        ExistsError: It is not.
        TritonpipeError: As of a promotion, or of the publication of an entry.
    """
    check_name(name)
    found = deployment_of(name, options.settings)
    if found is not None and not is_under_way(name, options.settings):
        raise ExistsError(
            f"the deployment {name!r} exists already: it serves {found.model_uri}",
            hint=f"mlflow deployments update -t tritonpipe --name {name} -m {model_uri}",
        )
    return deploy(name, model_uri, flavor, options)


def update(
    name: str, model_uri: str | None, flavor: str | None, options: Options
) -> dict[str, str]:
    """Let a deployment serve another version of its registered model.

    Without a URI, the version that it serves: that is only confirmed, since what a published
    version is served with never changes.

    Raises:
        MissingError: There is no such deployment.
        RequestError: A flavor without a model URI.
        TritonpipeError: As of a promotion, or of the publication of an entry.
    """
    found = existing(name, options.settings)
    if model_uri is None and flavor is not None:
        raise RequestError("a flavor needs a model URI", hint="name the version, too: -m URI")
    return deploy(name, model_uri or found.model_uri, flavor, options, replaced=found)


def delete(name: str, settings: Settings) -> None:
    """Take a deployment away; what is away already is no error, what never was is one.

    Returns when no server answers for it any more.

    Raises:
        MissingError: Nothing was ever deployed under this name.
        ConflictError: A published ensemble needs it, or it does not come from the registry.
        UnavailableError: It is away, but a server has not noticed.
    """
    check_name(name)
    if deployment_of(name, settings) is None:
        if is_held(name, settings):
            raise ConflictError(
                f"{name!r} is served, but it is no deployment: written by hand, or a part of one",
                hint=f"look at it with: tritonpipe history {name}",
            )
        if not was_deployed(name, settings):
            raise _missing(name)
    with suppress(RequestError):  # nothing is left of it
        retire(name, settings, reason="deployment deleted")


def existing(name: str, settings: Settings) -> Deployment:
    """The deployment of this name.

    Raises:
        MissingError: There is none.
    """
    found = deployment_of(name, settings)
    if found is None:
        raise _missing(name)
    return found


def deploy(
    name: str,
    model_uri: str,
    flavor: str | None,
    options: Options,
    *,
    replaced: Deployment | None = None,
    progress: Progress = silent,
) -> dict[str, str]:
    """Promote the version that a URI stands for, or publish it if it is a ready entry."""
    models = MlflowModels(options.settings.required("tracking_uri"))
    version = models.version_of(model_uri_from_text(model_uri), preferred=name)
    is_entry = _is_entry(flavor, version, models.describe(version).flavors)
    if replaced is not None:
        _refuse_other_kind(replaced, version, is_entry=is_entry)
    settings = options.settings_of(version.name)
    if is_entry:
        from pipeline.deployments.ready_entries import publish_entry

        publish_entry(models, version, name, options, progress=progress)
    else:
        _refuse_golden(options)
        refuse_other_options(name, version.version, settings, options.serving)
        request = PromotionRequest(model=version.name, version=version.version, triton_name=name)
        promote(request, settings, progress=progress)
    lineage = None if is_entry else lineage_of(name, version.version, settings)
    return {
        "name": name,
        "flavor": TRITON if lineage is None else lineage.flavor,
        "version": str(version.version),
        "mlflow_model_uri": f"models:/{version}",
    }


def _is_entry(wanted: str | None, version: ModelVersion, flavors: tuple[str, ...]) -> bool:
    """Whether it is a ready entry; a flavor that is not the one to be served is refused."""
    if not flavors and wanted != TRITON:
        raise RequestError(
            f"{version} has no MLmodel file, so its flavor is not known",
            hint="log it with mlflow.<flavor>.log_model; a ready entry of a Triton model "
            f"repository: --flavor {TRITON}",
        )
    if wanted is not None and flavors and wanted not in flavors:
        raise RequestError(
            f"{version} was not logged with the flavor {wanted!r}, but with {', '.join(flavors)}",
            hint="leave --flavor out, or name one of these",
        )
    is_entry = not flavors or TRITON in flavors
    served = TRITON if is_entry else _exported_flavor(version, flavors)
    if None not in (wanted, served) and wanted != served:
        raise RequestError(
            f"{version} is served from its flavor {served!r}, not from {wanted!r}",
            hint="leave --flavor out, or name that one",
        )
    return is_entry


def _exported_flavor(version: ModelVersion, flavors: tuple[str, ...]) -> str | None:
    """The flavor from which a graph is made; None if none is, and the promotion decides."""
    try:
        return choose_exporter(
            SourceModel(version=version, path=Path(), flavors=flavors, digest="")
        )
    except ModelError:
        return None


def _refuse_other_kind(replaced: Deployment, version: ModelVersion, *, is_entry: bool) -> None:
    """A deployment stays with its registered model: another one counts its versions anew."""
    before = replaced.model_uri.removeprefix("models:/").rpartition("/")[0]
    if before != version.name:
        wished = f"serve the registered model {version.name!r}"
    elif (replaced.flavor == TRITON) != is_entry:
        wished = "become a ready entry" if is_entry else "be exported from now on"
    else:
        return
    raise ConflictError(
        f"the deployment {replaced.name!r} serves {replaced.model_uri} ({replaced.flavor}), and "
        f"cannot {wished}",
        hint=f"create a deployment of another name, or delete {replaced.name} first",
    )


def _refuse_golden(options: Options) -> None:
    if options.golden is not None:
        raise RequestError(
            "the option 'golden' is for ready entries; a model that is exported is compared with "
            "its own predictions",
            hint="leave it out",
        )


def _missing(name: str) -> MissingError:
    return MissingError(
        f"there is no deployment {name!r}",
        hint="see what there is: mlflow deployments list -t tritonpipe",
    )
