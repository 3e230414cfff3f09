"""Releases that are recorded: published once, and served again as they are whenever wished."""

from __future__ import annotations

import time
from typing import Final

from pipeline.artifacts import ModelVersion, Release, RepositoryEntry
from pipeline.errors import ConflictError, UnavailableError
from pipeline.flows.journal import COLLECTED, FAILED, was_confirmed
from pipeline.flows.progress import Describe
from pipeline.flows.publish import (
    RepositoryState,
    damage,
    plan_publication,
    upload,
)
from pipeline.flows.replicas import require_live
from pipeline.flows.servers import Servers
from pipeline.locks import Held
from pipeline.manifest import SIGNATURE_NAME
from pipeline.samples import Samples
from pipeline.triton import TritonClient

_UNLOAD_SECONDS: Final = 60.0


def publish_entry(
    servers: Servers,
    entry: RepositoryEntry,
    state: RepositoryState,
    release: Release,
    golden: Samples,
    *,
    held: Held,
    describe: Describe = lambda _text: None,
) -> int:
    """Upload a new version and record the release; nothing is served yet.

    Args:
        servers: Where to.
        entry: The version.
        state: What the store holds now.
        release: What is recorded.
        golden: Kept beside the release.
        held: The lock of the model; asked before every write.
        describe: Told how far the upload is.

    Returns:
        The number of files uploaded.

    Raises:
        ConflictError: The version is served now and was made from other bytes; or the lock was
            lost, and nothing was written since.
        UnavailableError: Triton does not answer, or does not let go of an earlier attempt.
    """
    require_live(servers.replicas)
    plan = plan_publication(servers.repository, state, entry)
    if plan.uploads:
        for replica in servers.replicas:
            _await_unloaded(replica, state.model, entry.manifest.version)
    upload(
        servers.repository,
        entry,
        plan,
        held=held,
        transferred=lambda done, total: describe(f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"),
    )
    held.require_held()
    servers.journal.keep(release, golden)
    return len(plan.uploads)


def recorded_release(
    servers: Servers, model: str, version: int, *, state: RepositoryState | None = None
) -> tuple[Release, Samples]:
    """A release that can be served again as it is.

    Args:
        servers: Where it was published.
        model: Its Triton model.
        version: Its version.
        state: What the store holds, if it was read just before: saves a listing.

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
    listed_before = None if state is None else state.objects
    problems = damage(servers.repository, release.manifest, listed_before=listed_before)
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
    uploaded by a run that then ended is taken up; one that the server refused, or that was
    collected, is made anew.

    Raises:
        ConflictError: The version must not change, and the store no longer holds it.
    """
    events = [e for e in servers.journal.entries(state.model) if e.version == version]
    if state.version == version or was_confirmed(events, version):
        return recorded_release(servers, state.model, version, state=state)
    if events and events[-1].event in {FAILED, COLLECTED}:
        return None
    try:
        return recorded_release(servers, state.model, version, state=state)
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
        owners = {None: "something that has no record here", "": "an entry published by hand"}
        serves = owners.get(owner, f"{owner!r}")
        raise ConflictError(
            f"Triton model {state.model!r} serves {serves}, not the registered model "
            f"{version.name!r}",
            hint="serve this one under another name with --name",
        )


def refuse_unsigned(state: RepositoryState, version: int) -> None:
    """Return if a published version is signed; or served already, when there is nothing to decide.

    Raises:
        ConflictError: It is not: its folder must not change, so it cannot be signed now.
    """
    model = state.model
    if f"{model}/{version}/{SIGNATURE_NAME}" in state.objects or state.version == version:
        return
    raise ConflictError(
        f"{model}/{version} was published without a signature, and TRITONPIPE_SIGN is true",
        hint="register the model as a new version and promote that, or serve this one all the "
        "same with TRITONPIPE_SIGN=false",
    )


def _await_unloaded(replica: TritonClient, model: str, version: int) -> None:
    """Wait until Triton has let go of an earlier attempt at this version.

    Its files are about to be replaced: a load would see a mixture, and a version that is still
    loaded would answer for the new one.
    """
    deadline = time.monotonic() + _UNLOAD_SECONDS
    while True:
        state = replica.versions(model).get(version)
        if state is None or state.state not in {"READY", "LOADING", "UNLOADING"}:
            return
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"Triton still holds an earlier attempt at {model}/{version} ({state.state})",
                hint="run the command again when Triton has unloaded it, or restart Triton",
            )
        time.sleep(0.2)
