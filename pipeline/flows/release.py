"""Releases that are recorded: published once, and served again as they are whenever wished."""

from __future__ import annotations

import time
from typing import Final

from pipeline.artifacts import ModelVersion, Release, RepositoryEntry
from pipeline.errors import ConflictError, UnavailableError
from pipeline.flows.journal import FAILED, was_confirmed
from pipeline.flows.publish import (
    RepositoryState,
    damage,
    plan_publication,
    read_state,
    upload,
)
from pipeline.flows.servers import Servers
from pipeline.samples import Samples

_UNLOAD_SECONDS: Final = 60.0


def publish_entry(
    servers: Servers,
    entry: RepositoryEntry,
    state: RepositoryState,
    release: Release,
    golden: Samples,
) -> int:
    """Upload a new version and record the release; nothing is served yet.

    Args:
        servers: Where to.
        entry: The version.
        state: What the store held when the entry was made.
        release: What is recorded.
        golden: Kept beside the release.

    Returns:
        The number of files uploaded.

    Raises:
        ConflictError: Somebody else has committed a version of this model since ``state``.
        UnavailableError: Triton does not answer, or does not let go of an earlier attempt.
    """
    servers.triton.require_live()
    model, version = entry.manifest.model, entry.manifest.version
    current = read_state(servers.repository, model)
    if current.config != state.config:
        raise ConflictError(
            f"somebody else has committed {model}/{current.version} meanwhile",
            hint=f"look at: tritonpipe status {model}; then run the command again",
        )
    plan = plan_publication(servers.repository, current, entry)
    if plan.uploads:
        _await_unloaded(servers, model, version)
    upload(servers.repository, entry, plan)
    servers.journal.keep(release, golden)
    return len(plan.uploads)


def recorded_release(servers: Servers, model: str, version: int) -> tuple[Release, Samples]:
    """A release that can be served again as it is.

    Raises:
        ConflictError: It was never published, or the store no longer holds what was published.
    """
    release = servers.journal.release(model, version)
    golden = servers.journal.golden(model, version)
    if release is None or golden is None:
        raise ConflictError(
            f"there is no recorded release {model}/{version}",
            hint=f"promote the version instead, or look at: tritonpipe status {model}",
        )
    problems = damage(servers.repository, release.manifest)
    if problems:
        raise ConflictError(
            f"the repository no longer holds {model}/{version} as it was published: "
            + "; ".join(problems[:3]),
            hint="register the model as a new version and promote that",
        )
    return release, golden


def reusable_release(
    servers: Servers, state: RepositoryState, version: int
) -> tuple[Release, Samples] | None:
    """The release of a version that needs no new export; None if there is none.

    A version that ever answered as expected, or is committed now, never changes. One that was
    uploaded by a run that then ended is taken up; one that the server refused is made anew.

    Raises:
        ConflictError: The version must not change, and the store no longer holds it.
    """
    events = [e for e in servers.journal.entries(state.model) if e.version == version]
    if state.version == version or was_confirmed(events, version):
        return recorded_release(servers, state.model, version)
    if events and events[-1].event == FAILED:
        return None
    try:
        return recorded_release(servers, state.model, version)
    except ConflictError:
        return None


def refuse_other_model(servers: Servers, state: RepositoryState, version: ModelVersion) -> None:
    """Return if the Triton model is free, or serves this registered model already.

    Raises:
        ConflictError: It serves another registered model, or was not published by this tool.
    """
    if state.version is None:
        return
    release = servers.journal.release(state.model, state.version)
    owner = None if release is None else release.manifest.lineage.registered_model
    if owner != version.name:
        serves = "something that has no record here" if owner is None else f"{owner!r}"
        raise ConflictError(
            f"Triton model {state.model!r} serves {serves}, not the registered model "
            f"{version.name!r}",
            hint="serve this one under another name with --name",
        )


def _await_unloaded(servers: Servers, model: str, version: int) -> None:
    """Wait until Triton has let go of an earlier attempt at this version.

    Its files are about to be replaced: a load would see a mixture, and a version that is still
    loaded would answer for the new one.
    """
    deadline = time.monotonic() + _UNLOAD_SECONDS
    while True:
        state = servers.triton.versions(model).get(version)
        if state is None or state.state not in {"READY", "LOADING", "UNLOADING"}:
            return
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"Triton still holds an earlier attempt at {model}/{version} ({state.state})",
                hint="run the command again when Triton has unloaded it, or restart Triton",
            )
        time.sleep(0.2)
