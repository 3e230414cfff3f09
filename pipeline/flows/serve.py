"""Commits a release and proves it; or returns to what was proven before.

Guarantees of :func:`serve`: it returns only when the live server answers as expected. When it
raises, by an error or by Ctrl-C, the config of the last proven release is written back, and a model
that never had one is taken away; unless the version has proven itself, and only the writing down of
it failed. When the process is killed, the journal shows an open attempt, and
the next run knows from it what to return to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from pipeline.artifacts import Confirmation, Release
from pipeline.errors import ConfirmationError, TritonpipeError, UnavailableError
from pipeline.flows.commit import commit
from pipeline.flows.confirm import (
    are_settled,
    await_ready,
    confirm,
    failure_reasons,
)
from pipeline.flows.fallback import Fallback, last_confirmed, last_proven
from pipeline.flows.journal import (
    COMMITTING,
    CONFIRMED,
    FAILED,
    INTERRUPTED,
    open_attempt,
)
from pipeline.flows.progress import Progress
from pipeline.flows.publish import RepositoryState, read_state
from pipeline.flows.release import recorded_release
from pipeline.flows.replicas import require_live
from pipeline.flows.servers import Servers
from pipeline.flows.withdrawal import withdraw
from pipeline.interrupts import deferred_interrupts
from pipeline.locks import Held
from pipeline.samples import Samples


class _OvertakenError(ConfirmationError):
    """What failed is no longer committed, so there is nothing to take back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A release that is proven.

    Attributes:
        release: The release.
        confirmation: The proof.
        previous: The version to return to; the same one if it was proven before.
        is_new: Whether this run proved it for the first time.
    """

    release: Release
    confirmation: Confirmation
    previous: int | None
    is_new: bool


def serve(
    servers: Servers,
    release: Release,
    golden: Samples,
    *,
    held: Held,
    action: str,
    seconds: float,
    progress: Progress,
) -> Served:
    """Commit a published release and confirm it through every live server.

    Call with the lock of the model held.

    A release that is committed already is only confirmed; if it was proven before, then on failure
    nothing is taken back, since there is nothing better to return to.

    Raises:
        ConfirmationError: The live server did not load it or answers otherwise.
        ConflictError: Somebody else committed another version meanwhile; theirs is left alone.
        UnavailableError: Store or server do not answer.
    """
    model, version = release.manifest.model, release.manifest.version
    state = read_state(servers.repository, model)
    entries = servers.journal.entries(model)
    attempt = open_attempt(entries)
    is_committed = state.config == release.config
    note = partial(servers.journal.append, model, version=version, digest=release.manifest.digest)
    if is_committed and (attempt is None or attempt.version != version):
        confirmation = _prove(servers, release, golden, held, seconds, progress)
        if last_confirmed(entries) != version:
            # Somebody has written the config by hand, or lost the end of the journal.
            _note_confirmed(partial(note, action=action, previous=version), f"{model}/{version}")
        return Served(release=release, confirmation=confirmation, previous=version, is_new=False)
    fallback = last_proven(servers, state, entries)
    note = partial(
        note,
        action=attempt.action if is_committed and attempt else action,
        previous=fallback.version,
    )
    known_reasons = failure_reasons(servers.replicas, model, version)
    try:
        if not is_committed:
            note(event=COMMITTING)
            with progress("commit") as describe:
                commit(servers.repository, state, release.config, held=held)
                describe(f"{model}/config.pbtxt names version {version}")
        confirmation = _prove(servers, release, golden, held, seconds, progress, known_reasons)
    except BaseException as error:
        is_interrupt = isinstance(error, KeyboardInterrupt)
        note_end = partial(
            note,
            event=INTERRUPTED if is_interrupt else FAILED,
            reason=str(error) or type(error).__name__,
        )
        with deferred_interrupts():
            try:
                is_restored = _restore(servers, release, fallback, error, held, progress)
            except _OvertakenError as overtaken:
                note_end()
                raise ConfirmationError(overtaken.message, hint=overtaken.hint) from error
            note_end()
        if is_restored and not is_interrupt and fallback.version is not None:
            _prove_fallback(servers, model, fallback.version, error, held, seconds, progress)
        raise
    _note_confirmed(note, f"{model}/{version}")
    return Served(
        release=release, confirmation=confirmation, previous=fallback.version, is_new=True
    )


def proof_of_served(
    servers: Servers,
    state: RepositoryState,
    release: Release,
    golden: Samples,
    *,
    seconds: float,
    progress: Progress,
) -> Served | None:
    """The proof of a release that is served already; None if there is anything to do first.

    Needs no lock, since it writes nothing, and no request to the store.

    Args:
        servers: Where it is served.
        state: What the store holds.
        release: What shall be served.
        golden: The answers that prove it.
        seconds: How long the servers may take to answer.
        progress: Told the stages.
    """
    model, version = release.manifest.model, release.manifest.version
    entries = servers.journal.entries(model)
    if state.config != release.config or open_attempt(entries) is not None:
        return None
    if last_confirmed(entries) != version or not are_settled(servers.replicas, model, version):
        return None
    try:
        confirmation = _confirm(servers, release, golden, seconds, 0.0, progress)
    except ConfirmationError:
        return None
    return Served(release=release, confirmation=confirmation, previous=version, is_new=False)


def _prove(
    servers: Servers,
    release: Release,
    golden: Samples,
    held: Held,
    seconds: float,
    progress: Progress,
    known_reasons: tuple[str, ...] | None = None,
) -> Confirmation:
    model, version = release.manifest.model, release.manifest.version
    with progress("load") as describe:
        waited = await_ready(
            servers.replicas,
            release,
            seconds=seconds,
            known_reasons=known_reasons or ("",) * len(servers.replicas),
            commit_again=partial(commit_again, servers, model, release.config, held),
        )
        describe(f"{_tritons(servers)} {model}/{version}")
    return _confirm(servers, release, golden, seconds, waited, progress)


def _confirm(
    servers: Servers,
    release: Release,
    golden: Samples,
    seconds: float,
    waited: float,
    progress: Progress,
) -> Confirmation:
    with progress("confirm") as describe:
        confirmation = confirm(servers.replicas, release, golden, seconds=seconds, waited=waited)
        latency = ", ".join(
            f"{protocol} {ms:.1f} ms" for protocol, ms in confirmation.latency_milliseconds.items()
        )
        describe(f"golden answers as expected: {latency}")
    return confirmation


def commit_again(servers: Servers, model: str, config: str, held: Held) -> None:
    """Give a server that has missed a commit a newer one to see; only if it still stands."""
    state = read_state(servers.repository, model)
    if state.config == config:
        commit(servers.repository, state, config, held=held)


def _tritons(servers: Servers) -> str:
    count = len(servers.replicas)
    return "Triton serves" if count == 1 else f"{count} Tritons serve"


def _note_confirmed(note: partial[None], what: str) -> None:
    try:
        note(event=CONFIRMED)
    except TritonpipeError as error:
        raise UnavailableError(
            f"{what} is served and confirmed, but that could not be written down: {error}",
            hint="run the command again when the store answers; it only confirms and records",
        ) from error


def _restore(
    servers: Servers,
    release: Release,
    fallback: Fallback,
    error: BaseException,
    held: Held,
    progress: Progress,
) -> bool:
    """Write back what was proven before; False if there was nothing to write."""
    model = release.manifest.model
    try:
        with progress("restore") as describe:
            state = read_state(servers.repository, model)
            if state.config == fallback.config:
                describe("nothing was committed")
                return False
            _expect_committed(release, state, error)
            if fallback.config is None:
                withdraw(servers, model, held)
                describe(f"{model} was not served before: it is taken away")
                return True
            commit(servers.repository, state, fallback.config, held=held)
            describe(f"{model}/config.pbtxt names version {fallback.version} again")
            return True
    except _OvertakenError:
        raise
    except TritonpipeError as failure:
        hint = f"tritonpipe rollback {model} --to {fallback.version}"
        raise ConfirmationError(
            f"{error}; and what was served before could not be restored: {failure}",
            hint=f"look at: tritonpipe status {model}; then "
            + ("promote again" if fallback.version is None else f"run: {hint}"),
        ) from error


def _expect_committed(release: Release, state: RepositoryState, error: BaseException) -> None:
    if state.config != release.config:
        raise _OvertakenError(
            f"{error}; and somebody else has committed another version meanwhile",
            hint=f"theirs was left alone: look at: tritonpipe status {state.model}",
        ) from error


def _prove_fallback(
    servers: Servers,
    model: str,
    version: int,
    error: BaseException,
    held: Held,
    seconds: float,
    progress: Progress,
) -> None:
    try:
        require_live(servers.replicas)
        release, golden = recorded_release(servers, model, version)
        _prove(servers, release, golden, held, seconds, progress)
    except TritonpipeError as failure:
        raise ConfirmationError(
            f"{error}; version {version} is committed again, but the server does not yet prove "
            f"that it serves it: {failure}",
            hint=f"look at: tritonpipe status {model}; there is nothing more to commit",
        ) from error
