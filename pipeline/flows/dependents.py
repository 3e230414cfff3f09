"""What else a commit would change: ensembles that have the model as a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.artifacts import Release
from pipeline.ensemble_edges import broken_ensembles
from pipeline.ensembles import NEWEST, steps_of
from pipeline.errors import ConflictError
from pipeline.flows.publish import read_state
from pipeline.flows.release import recorded_release
from pipeline.flows.servers import Servers
from pipeline.model_config import served_versions


def require_ensembles_kept(servers: Servers, release: Release) -> None:
    """Return if the published ensembles work with this release as they do now.

    Raises:
        ConflictError: An ensemble names another version of the model, or does not fit this one, and
            would be unloaded; or this one is an ensemble, and one of its steps is half way to
            another version.
    """
    model, version = release.manifest.model, release.manifest.version
    for step in steps_of(release.config):
        _ = read_state(servers.repository, step.model).version  # not half way to another one
    published = concerned_ensembles(servers, frozenset({model}))
    for name, config in published.items():
        named = {s.version for s in steps_of(config) if s.model == model}
        if not named <= {NEWEST, version}:
            other = next(iter(named - {NEWEST, version}))
            raise ConflictError(
                f"the ensemble {name} names version {other} of {model}, which version {version} "
                "would take away from it",
                hint=f"publish {name} together with {model}, or let it name version {NEWEST}, "
                "the newest one; if a release of both is half way, run its command again",
            )
    steps = {step.model for config in published.values() for step in steps_of(config)}
    for name in steps - published.keys():
        state = read_state(servers.repository, name)
        published[name] = state.config or ""
        _ = state.versions  # refuses what cannot be read
    for name, problems in broken_ensembles(model, release.config, published).items():
        raise ConflictError(
            f"with {model}/{version} the ensemble {name} could no longer be served: "
            + "; ".join(problems),
            hint=f"serve this version under another name, such as {model}-{version}, and publish a "
            f"version of {name} that names it",
        )


def concerned_ensembles(servers: Servers, models: frozenset[str]) -> dict[str, str]:
    """Published ensembles with one of these models as a step, each with its committed config.

    An ensemble has no files of its own, so one listing tells which configs are worth reading. What
    cannot be read as a config is no ensemble that anybody serves.
    """
    files: dict[str, int] = {}
    configs: set[str] = set()
    for stored in servers.repository.list_folder(""):
        model, _, rest = stored.key.partition("/")
        configs |= {model} if rest == "config.pbtxt" else set()
        is_content = rest.count("/") == 1 and not rest.split("/")[1].startswith("manifest.json")
        files[model] = files.get(model, 0) + (is_content and rest.split("/")[0].isdigit())
    found = {}
    for name in sorted(configs):
        if name in models or files[name]:
            continue
        try:
            config = read_state(servers.repository, name).config or ""
            steps = steps_of(config)
        except (ConflictError, ValueError):
            continue
        if models & {step.model for step in steps}:
            found[name] = config
    return found


def own_config(servers: Servers, name: str, committed: str) -> str:
    """The config of an ensemble's own release, without the pins of a switch.

    Raises:
        ConflictError: It was not published by this tool.
    """
    versions = served_versions(committed)
    if not versions or servers.journal.release(name, versions[0]) is None:
        raise ConflictError(
            f"the ensemble {name} uses a model of this release, and was not published by this tool",
            hint=f"publish {name} from a folder of model_repository/, in the same command",
        )
    release, _golden = recorded_release(servers, name, versions[0])
    return release.config


def require_switchable(
    servers: Servers, releases: Sequence[Release], ensembles: Mapping[str, str]
) -> None:
    """Return if releases can switch together without leaving an ensemble without a step.

    Args:
        servers: Where.
        releases: One for each model.
        ensembles: The other ensembles that use these models, each with its own release's config.

    Raises:
        ConflictError: An ensemble names another version of a step, or is itself a step.
    """
    configs = {release.manifest.model: release.config for release in releases}
    versions = {release.manifest.model: release.manifest.version for release in releases}
    for name, config in {**ensembles, **configs}.items():
        for step in steps_of(config):
            if step.version not in {NEWEST, versions.get(step.model, step.version)}:
                raise ConflictError(
                    f"the ensemble {name} names version {step.version} of {step.model}, which "
                    f"version {versions[step.model]} would take away from it",
                    hint=f"publish a version of {name} that names it in the same command",
                )
            served = _versions(servers, step.model)
            is_inner = step.model in configs and bool(steps_of(configs[step.model]))
            if is_inner and served and served != (versions[step.model],):
                raise ConflictError(
                    f"{step.model} is an ensemble and a step of {name}: two versions of it "
                    "cannot be served side by side",
                    hint=f"publish it under another name, and let {name} name that",
                )


def _versions(servers: Servers, model: str) -> tuple[int, ...]:
    return read_state(servers.repository, model).versions
