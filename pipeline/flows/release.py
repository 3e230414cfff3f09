"""From an entry, or a recorded release, to a confirmed one; or back to what was served before."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from pipeline.artifacts import Confirmation, PublishPlan, Release, RepositoryEntry
from pipeline.errors import (
    ConfirmationError,
    ConflictError,
    TritonpipeError,
    UnavailableError,
)
from pipeline.flows.confirm import await_ready, confirm, failure_reason
from pipeline.flows.journal import COMMITTING, CONFIRMED, FAILED, was_confirmed
from pipeline.flows.progress import Progress
from pipeline.flows.publish import (
    RepositoryState,
    commit,
    published_manifest,
    read_state,
    upload,
    withdraw_config,
)
from pipeline.flows.servers import Servers
from pipeline.samples import Samples

_RESTORE_SECONDS: Final = 30.0


def publish_entry(
    servers: Servers, entry: RepositoryEntry, plan: PublishPlan, release: Release, golden: Samples
) -> None:
    """Upload a new version and record the release; nothing is served yet."""
    servers.triton.require_live()
    upload(servers.repository, entry, plan)
    servers.journal.keep(release, golden)


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
    published = published_manifest(servers.repository, model, version)
    if published is None or published.digest != release.manifest.digest:
        raise ConflictError(
            f"the repository no longer holds {model}/{version} as it was published",
            hint="register the model as a new version and promote that",
        )
    return release, golden


def reusable_release(
    servers: Servers, state: RepositoryState, version: int
) -> tuple[Release, Samples] | None:
    """The release of a version that needs no new export; None if there is none.

    A version that ever answered as expected, or is committed now, never changes. One that was
    uploaded by a run that then died is taken up; one that the server refused is made anew.

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


def serve(
    servers: Servers,
    release: Release,
    golden: Samples,
    *,
    action: str,
    seconds: float,
    progress: Progress,
) -> Confirmation:
    """Commit a published release and confirm it through the live server.

    Guarantees: when this raises, by an error or by Ctrl-C, what was served before is served again;
    a model that was never served is taken back. If the release is already committed, it is only
    confirmed, and on failure nothing is taken back, since there is nothing better to return to.

    Raises:
        ConfirmationError: The live server did not load it or answers otherwise.
        UnavailableError: Store or server do not answer.
    """
    model, version = release.manifest.model, release.manifest.version
    state = read_state(servers.repository, model)
    if state.config == release.config:
        return _confirm(servers, release, golden, seconds, "", progress)
    note = partial(
        servers.journal.append, model, action=action, version=version, previous=state.version
    )
    known_reason = failure_reason(servers.triton, model, version)
    note(event=COMMITTING)
    try:
        with progress("commit") as describe:
            commit(servers.repository, model, release.config)
            describe(f"{model}/config.pbtxt names version {version}")
        confirmation = _confirm(servers, release, golden, seconds, known_reason, progress)
    except BaseException as error:
        _restore(servers, state, error, progress)
        note(event=FAILED, reason=str(error) or type(error).__name__)
        raise
    note(event=CONFIRMED)
    return confirmation


def _confirm(
    servers: Servers,
    release: Release,
    golden: Samples,
    seconds: float,
    known_reason: str,
    progress: Progress,
) -> Confirmation:
    with progress("load") as describe:
        waited = await_ready(servers.triton, release, seconds=seconds, known_reason=known_reason)
        describe(f"Triton serves {release.manifest.model}/{release.manifest.version}")
    with progress("confirm") as describe:
        confirmation = confirm(servers.triton, release, golden, seconds=seconds, waited=waited)
        latency = ", ".join(
            f"{protocol} {ms:.1f} ms" for protocol, ms in confirmation.latency_milliseconds.items()
        )
        describe(f"golden answers as expected: {latency}")
    return confirmation


def _restore(
    servers: Servers, state: RepositoryState, error: BaseException, progress: Progress
) -> None:
    """Commit what was served before; after Ctrl-C without waiting for the server."""
    try:
        with progress("restore") as describe:
            if state.config is None:
                withdraw_config(servers.repository, state.model)
                describe(f"{state.model} was not served before: its config is taken back")
                return
            commit(servers.repository, state.model, state.config)
            if not isinstance(error, KeyboardInterrupt):
                _await_version(servers, state)
            describe(f"version {state.version} is served again")
    except TritonpipeError as failure:
        raise ConfirmationError(
            f"{error}; and what was served before could not be restored: {failure}",
            hint=f"when the servers answer again, run: tritonpipe rollback {state.model}",
        ) from error


def _await_version(servers: Servers, state: RepositoryState) -> None:
    deadline = time.monotonic() + _RESTORE_SECONDS
    while not servers.triton.is_ready(state.model, state.version or 0):
        if time.monotonic() > deadline:
            raise UnavailableError(f"Triton does not say that {state.version} is ready")
        time.sleep(0.1)
