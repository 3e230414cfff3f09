"""Back to a release that was served before: one PUT, no export."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.artifacts import Confirmation, ModelVersion, Release
from pipeline.ensembles import steps_of
from pipeline.errors import RequestError
from pipeline.flows.dependents import require_ensembles_kept
from pipeline.flows.joint import release_together
from pipeline.flows.joint_rollback import previous_together
from pipeline.flows.journal import (
    CONFIRMED,
    ROLLBACK,
    JournalEntry,
    open_attempt,
    served_history,
    was_collected,
    was_confirmed,
)
from pipeline.flows.locking import ENSEMBLES, held_locks
from pipeline.flows.progress import Progress, Stopwatch, silent
from pipeline.flows.publication import Candidate
from pipeline.flows.publish import read_state
from pipeline.flows.record import record_served
from pipeline.flows.release import recorded_release
from pipeline.flows.replicas import require_live
from pipeline.flows.serve import serve
from pipeline.flows.servers import Servers, open_servers
from pipeline.model_config import check_name
from pipeline.samples import Samples
from pipeline.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackPlan:
    """What rolling back will do.

    Attributes:
        model: Triton model.
        version: Version that will be served.
        previous: Version that is served now.
        together: All releases, as ``MODEL/VERSION``, that will be served with it; empty for a model
            that was released on its own.
    """

    model: str
    version: int
    previous: int
    together: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackResult:
    """How a rollback ended."""

    plan: RollbackPlan
    confirmation: Confirmation
    seconds: dict[str, float]


def plan_rollback(model: str, settings: Settings, *, to: int | None = None) -> RollbackPlan:
    """What would be served again; writes nothing.

    Raises:
        RequestError: The model is not served, or there is nothing to return to.
        ConflictError: The release to return to is no longer whole.
    """
    with open_servers(settings) as servers:
        together = previous_together(servers, check_name(model))
        if together:
            return _plan_together(servers, model, together, to)
        plan, _release, _golden = _plan(servers, model, to)
        return plan


def rollback(
    model: str, settings: Settings, *, to: int | None = None, progress: Progress = silent
) -> RollbackResult:
    """Serve the previous release, or the kept release ``to``, and prove it.

    Models that were released together go back together.

    The alias in the registry is left alone: it says what is wished, and moving it is the data
    scientist's decision.

    Raises:
        RequestError: The model is not served, or there is nothing to return to.
        ConflictError: The release to return to is no longer whole.
        ConfirmationError: The live server did not confirm; what was served is served again.
    """
    watch = Stopwatch(progress)
    with open_servers(settings) as servers:
        require_live(servers.replicas)
        together = previous_together(servers, check_name(model))
        if together:
            plan = _plan_together(servers, model, together, to)
            proofs = release_together(
                servers, together, action=ROLLBACK, settings=settings, progress=watch
            ).confirmations
            for candidate in together:
                if not steps_of(candidate.release.config):
                    continue  # a part is not what the registry knows as served
                model_proof = proofs[candidate.release.manifest.model]
                _record(servers, candidate.release, model_proof, watch)
            return RollbackResult(plan=plan, confirmation=proofs[model], seconds=watch.seconds)
        _wish, expected, _answers = _plan(servers, model, to)
        names = {model, ENSEMBLES} if steps_of(expected.config) else {model}
        with held_locks(
            servers.locks, names, seconds=settings.lock_seconds, progress=watch
        ) as locks:
            plan, release, golden = _plan(servers, model, to)
            require_ensembles_kept(servers, release)
            served = serve(
                servers,
                release,
                golden,
                held=locks[model],
                action=ROLLBACK,
                seconds=settings.confirm_seconds,
                progress=watch,
            )
        _record(servers, release, served.confirmation, watch)
        return RollbackResult(plan=plan, confirmation=served.confirmation, seconds=watch.seconds)


def _record(
    servers: Servers, release: Release, confirmation: Confirmation, progress: Stopwatch
) -> None:
    """Say in the registry what is served again; it does not know what was published by hand."""
    lineage = release.manifest.lineage
    if lineage.is_by_hand:
        return
    with progress("record") as describe:
        version = ModelVersion(
            name=lineage.registered_model,
            version=lineage.registered_version,
            run_id=lineage.run_id,
            source=lineage.source,
            tags={},
        )
        describe(record_served(servers, version, release, confirmation, seconds=progress.seconds))


def _plan_together(
    servers: Servers, model: str, together: list[Candidate], to: int | None
) -> RollbackPlan:
    targets = {c.release.manifest.model: c.release.manifest.version for c in together}
    if model not in targets:
        raise RequestError(
            f"this is the first release of {model}: there is nothing to roll back to"
        )
    if to not in {None, targets[model]}:
        raise RequestError(
            f"{model} was released together with {', '.join(sorted(targets.keys() - {model}))}: "
            f"it goes back with them to version {targets[model]}, not to {to}",
            hint=f"tritonpipe rollback {model}; then publish the versions that you want together",
        )
    state = read_state(servers.repository, model)
    return RollbackPlan(
        model=model,
        version=targets[model],
        previous=max(state.versions, default=targets[model]),
        together=tuple(f"{name}/{version}" for name, version in sorted(targets.items())),
    )


def _plan(servers: Servers, model: str, to: int | None) -> tuple[RollbackPlan, Release, Samples]:
    current = read_state(servers.repository, model).version
    if current is None:
        raise RequestError(f"{model!r} is not served", hint="see what is: tritonpipe status")
    entries = servers.journal.entries(model)
    target = _previous(model, current, entries) if to is None else to
    confirmed = {e.version for e in entries if e.event == CONFIRMED}
    released = sorted(v for v in confirmed if was_confirmed(entries, v))
    if target in confirmed and was_collected(entries, target):
        raise RequestError(
            f"{model}/{target} is no longer kept: its files were collected as garbage; kept are "
            + (", ".join(str(version) for version in released) or "none"),
            hint=f"promote the version again, or choose one of these: rollback {model} --to N",
        )
    if target not in released:
        raise RequestError(
            f"{model} has no release {target} that was ever confirmed; it has "
            + (", ".join(str(version) for version in released) or "none"),
            hint=f"promote the version instead, or choose one of these: rollback {model} --to N",
        )
    attempt = open_attempt(entries)
    is_unfinished = attempt is not None and attempt.version == current
    if target == current and not is_unfinished:
        raise RequestError(f"{model}/{target} is what is served now")
    release, golden = recorded_release(servers, model, target)
    return RollbackPlan(model=model, version=target, previous=current), release, golden


def _previous(model: str, current: int, entries: list[JournalEntry]) -> int:
    attempt = open_attempt(entries)
    if attempt is not None and attempt.action == ROLLBACK:
        # A rollback that was killed is finished, not followed by another one further back.
        return attempt.version
    earlier = [v for v in served_history(entries, current) if v != current]
    if not earlier:
        raise RequestError(
            f"{model}/{current} is the first release of {model}: there is nothing to roll back to"
        )
    return earlier[-1]
