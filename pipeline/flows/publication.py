"""One publication of one model, from its first upload to its proof, under the model's lock.

What was planned without the lock is checked again with it: of two publishers exactly one commits,
and the other one says so, or finds its own version already there and only proves it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.artifacts import Release, RepositoryEntry
from pipeline.ensembles import steps_of
from pipeline.errors import ConflictError
from pipeline.flows.dependents import require_ensembles_kept
from pipeline.flows.locking import ENSEMBLES, held_locks
from pipeline.flows.progress import Progress
from pipeline.flows.publish import RepositoryState, read_state
from pipeline.flows.release import publish_entry, recorded_release
from pipeline.flows.serve import Served, serve
from pipeline.flows.servers import Servers
from pipeline.locks import Held
from pipeline.samples import Samples
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """What shall be served.

    Attributes:
        release: The release.
        golden: The answers that prove it.
        entry: Its files; None if the repository holds them already.
    """

    release: Release
    golden: Samples
    entry: RepositoryEntry | None


def publish_and_serve(
    servers: Servers,
    candidate: Candidate,
    planned: RepositoryState,
    *,
    action: str,
    settings: Settings,
    progress: Progress,
) -> Served:
    """Publish a candidate if it is not yet, commit it, and prove it on every server.

    Args:
        servers: Where to.
        candidate: What shall be served.
        planned: What the store held when that was decided.
        action: What the journal calls it.
        settings: How long to wait for the lock and for the servers.
        progress: Told the stages.

    Raises:
        ConflictError: Somebody else has committed another version since ``planned``, or publishes
            this model now; or a published ensemble needs the version that is served.
        ConfirmationError: The live server did not confirm; what was served before is served again.
        UnavailableError: Store or server do not answer.
    """
    # The steps of an ensemble must stay as they are until it has proven itself.
    steps = {step.model for step in steps_of(candidate.release.config)}
    models = {planned.model, *steps, *({ENSEMBLES} if steps else ())}
    with held_locks(
        servers.locks, models, seconds=settings.lock_seconds, progress=progress
    ) as locks:
        held = locks[planned.model]
        state = read_state(servers.repository, planned.model)
        version = candidate.release.manifest.version
        if state.config != planned.config and state.version != version:
            raise ConflictError(
                f"somebody else has committed {state.model}/{state.version} meanwhile",
                hint=f"look at: tritonpipe status {state.model}; then run the command again",
            )
        require_ensembles_kept(servers, candidate.release)
        if candidate.entry is not None:
            candidate = _published(servers, candidate, candidate.entry, state, held, progress)
        else:
            # Since it was found, its files may have been collected.
            recorded_release(servers, state.model, version, state=state)
        return serve(
            servers,
            candidate.release,
            candidate.golden,
            held=held,
            action=action,
            seconds=settings.confirm_seconds,
            progress=progress,
        )


def _published(
    servers: Servers,
    candidate: Candidate,
    entry: RepositoryEntry,
    state: RepositoryState,
    held: Held,
    progress: Progress,
) -> Candidate:
    with progress("publish") as describe:
        version = entry.manifest.version
        if state.version == version:
            release, golden = recorded_release(servers, state.model, version, state=state)
            describe(f"another run has published {state.model}/{version} meanwhile")
            return Candidate(release=release, golden=golden, entry=None)
        files = publish_entry(
            servers,
            entry,
            state,
            candidate.release,
            candidate.golden,
            held=held,
            describe=describe,
        )
        describe(f"{files} files, {entry.manifest.digest[:19]}")
        return replace(candidate, entry=None)
