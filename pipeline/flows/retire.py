"""Takes a model away that nobody wishes any more, while its records stay.

Guarantees: it works under the model's lock; each version is written down as collected before its
files go, so that nothing counts on them afterwards; killed anywhere, the next run finishes. A model
that a published ensemble needs is left alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from pipeline.ensembles import steps_of
from pipeline.errors import ConflictError, RequestError, UnavailableError
from pipeline.flows.dependents import concerned_ensembles
from pipeline.flows.holdings import version_folders
from pipeline.flows.journal import COLLECTED, RETIRE, was_collected
from pipeline.flows.locking import ENSEMBLES, held_locks
from pipeline.flows.parts import PARTS, owner_of
from pipeline.flows.progress import Progress, silent
from pipeline.flows.publish import read_state
from pipeline.flows.record import record_retirement
from pipeline.flows.servers import Servers, open_servers
from pipeline.flows.withdrawal import withdraw
from pipeline.model_config import check_name
from pipeline.settings import Settings

_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireResult:
    """What was taken away.

    Attributes:
        model: Name in Triton.
        version: The version that was served; None if none was.
        versions: All versions whose files were removed.
        parts: Models that were served as its parts, and went with it.
    """

    model: str
    version: int | None
    versions: tuple[int, ...]
    parts: tuple[str, ...] = ()


def plan_retirement(model: str, settings: Settings) -> RetireResult:
    """What would be taken away; writes nothing.

    Raises:
        RequestError: The repository holds nothing of the model.
        ConflictError: A published ensemble needs it.
    """
    with open_servers(settings) as servers:
        return _plan(servers, check_name(model))


def retire(
    model: str, settings: Settings, *, reason: str = "", progress: Progress = silent
) -> RetireResult:
    """Take a model away; returns when no server answers for it any more.

    Its releases stay on record; to serve one again it is exported anew.

    Raises:
        RequestError: The repository holds nothing of the model.
        ConflictError: A published ensemble needs it, or somebody publishes it now.
        UnavailableError: Store or server do not answer, the next run finishes; or it is away, but
            a server has not noticed.
    """
    with open_servers(settings) as servers:
        return take_away(
            servers, check_name(model), settings=settings, reason=reason, progress=progress
        )


def take_away(
    servers: Servers, model: str, *, settings: Settings, reason: str, progress: Progress
) -> RetireResult:
    """The same on servers that are open; see :func:`retire`."""
    state = read_state(servers.repository, model)
    names = {model, *_parts_of(servers, model)}
    if steps_of(state.config or ""):
        names.add(ENSEMBLES)
    with held_locks(
        servers.locks, names, seconds=settings.lock_seconds, progress=progress
    ) as locks:
        try:
            plan = _plan(servers, model)
        except RequestError:
            if _record(servers, model, progress):  # an earlier run could not
                return RetireResult(model=model, version=None, versions=())
            raise
        with progress("retire") as describe:
            # The ensemble first: a part that is needed is never taken away.
            for each in (model, *plan.parts):
                _write_down(servers, each, reason)
                withdraw(servers, each, locks[each])
            describe(f"{model} is no longer served; {len(plan.versions)} versions removed")
    _record(servers, model, progress)
    with progress("unload") as describe:
        for name in (model, *plan.parts):
            _await_unloaded(servers, name, plan.versions, settings.confirm_seconds)
        describe("no server answers any more")
    return plan


def _record(servers: Servers, model: str, progress: Progress) -> bool:
    """Say in the registry what is no longer served; whether anything there said that it was."""
    entries = servers.journal.entries(model)
    last = next((e for e in reversed(entries) if e.action == RETIRE), None)
    release = servers.journal.release(model, last.version) if last else None
    if release is None or release.manifest.lineage.is_by_hand:
        return False
    with progress("record") as describe:
        versions = record_retirement(servers, release.manifest.lineage, model)
        told = ", ".join(map(str, versions)) or "no version"
        describe(f"{told} is no longer served as {model}")
    return bool(versions)


def _plan(servers: Servers, model: str) -> RetireResult:
    state = read_state(servers.repository, model)
    parts = _parts_of(servers, model)
    if not (state.objects or parts):
        raise RequestError(
            f"the repository holds nothing of {model!r}", hint="see what is: tritonpipe status"
        )
    ensembles = concerned_ensembles(servers, frozenset({model}))
    if ensembles:
        raise ConflictError(
            f"{model} is a step of {', '.join(sorted(ensembles))}, which could not answer without "
            "it",
            hint=f"retire {' and '.join(sorted(ensembles))} first",
        )
    return RetireResult(
        model=model,
        version=max(state.versions, default=None),
        versions=tuple(version_folders(state.objects.values(), model)),
        parts=parts,
    )


def _await_unloaded(
    servers: Servers, model: str, versions: tuple[int, ...], seconds: float
) -> None:
    deadline = time.monotonic() + seconds
    for replica in servers.replicas:
        while any(replica.is_ready(model, version) for version in versions):
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{model} is removed, and Triton at {replica.http_address} has not unloaded "
                    f"it within {seconds:g} s",
                    hint="look whether it polls the repository",
                )
            time.sleep(_LOOK_SECONDS)


def _parts_of(servers: Servers, model: str) -> tuple[str, ...]:
    """Models that are there only as parts of this one, also when a killed run has left them."""
    found = []
    for name in (f"{model}.{part}" for part in PARTS):
        is_part = owner_of(name, servers.journal.entries(name)) == model
        if is_part and read_state(servers.repository, name).objects:
            found.append(name)
    return tuple(found)


def _write_down(servers: Servers, model: str, reason: str) -> None:
    entries = servers.journal.entries(model)
    state = read_state(servers.repository, model)
    for version in version_folders(state.objects.values(), model):
        if was_collected(entries, version):
            continue  # by a run that was killed
        release = servers.journal.release(model, version)
        servers.journal.append(
            model,
            action=RETIRE,
            event=COLLECTED,
            version=version,
            previous=None,
            reason=reason or "retired",
            digest=release.manifest.digest if release else "",
        )
