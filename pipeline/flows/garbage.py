"""Removes versions that nobody needs, and never one that somebody could.

What is needed is decided in :mod:`pipeline.flows.retention`. Leftovers of publications that never
committed are garbage, too.

Guarantees: it works under the model's lock and decides again under it. A version is written down as
collected, then loses its manifest, then the rest, so that a half-deleted folder never counts as
intact, and killed anywhere, the next run finishes. If a source does not answer, nothing is removed.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.errors import ConflictError, RequestError
from pipeline.flows.holdings import Holdings, survey
from pipeline.flows.journal import COLLECTED, GC
from pipeline.flows.locking import held_lock
from pipeline.flows.progress import Progress, silent
from pipeline.flows.publish import WARMUP_MARKER
from pipeline.flows.repository import Repository
from pipeline.flows.retention import (
    Garbage,
    ModelGarbage,
    Needs,
    pins_of,
    plan_collection,
    wishes_of,
)
from pipeline.flows.servers import open_servers, repository_of
from pipeline.locks import Held
from pipeline.manifest import MANIFEST_NAME
from pipeline.model_config import check_name
from pipeline.registries import Registry
from pipeline.repository_names import is_legal_model
from pipeline.settings import Settings

_LOADING_SECONDS: Final = 30.0


def collect_garbage(
    settings: Settings,
    models: Sequence[str] = (),
    *,
    keep: int,
    dry_run: bool = False,
    progress: Progress = silent,
) -> tuple[ModelGarbage, ...]:
    """Remove the versions that nobody needs, of these models or of all.

    A model whose state cannot be judged is left alone, and its problem says why.

    Args:
        settings: Where the servers are, and how long to wait for a lock.
        models: Triton models; all of the repository if there are none.
        keep: How many proven releases of each model are kept, at least one.
        dry_run: Only tell what would be removed.
        progress: Told the stages.

    Raises:
        RequestError: A model is not in the repository.
        UnavailableError: Store, registry or a Triton do not answer; nothing more was removed.
    """
    with open_servers(settings) as servers:
        collector = Collector(
            repository=repository_of(servers),
            registry=servers.registry,
            keep=keep,
            lock_seconds=settings.lock_seconds,
            progress=progress,
        )
        return collector.collect(models, dry_run=dry_run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """Collects the garbage of one repository.

    Attributes:
        repository: Where from.
        registry: Where the wishes are.
        keep: How many proven releases of each model are kept.
        lock_seconds: How long to wait for a publisher at work.
        progress: Told the stages.
    """

    repository: Repository
    registry: Registry
    keep: int
    lock_seconds: float
    progress: Progress

    def collect(self, models: Sequence[str], *, dry_run: bool) -> tuple[ModelGarbage, ...]:
        """See :func:`collect_garbage`."""
        known = models_in(o.key for o in self.repository.store.list_folder(""))
        unknown = [name for name in models if check_name(name) not in known]
        if unknown:
            raise RequestError(
                f"the repository holds nothing of {', '.join(map(repr, unknown))}",
                hint="see what there is: tritonpipe status",
            )
        needs = self._needs(known, models)
        found = []
        for name in models or known:
            try:
                plan = self._plan(name, needs)
                if plan.garbage and not dry_run:
                    plan = self._collect(name, known, models)
            except ConflictError as error:
                plan = ModelGarbage(model=name, kept={}, garbage=(), problem=error.message)
            found.append(plan)
        return tuple(found)

    def _plan(self, model: str, needs: Needs) -> ModelGarbage:
        with self.progress("plan") as describe:
            plan = plan_collection(survey(self.repository, model), needs)
            versions = len(plan.garbage) + len(plan.kept)
            describe(f"{model}: {len(plan.garbage)} of {versions} versions are not needed")
            return plan

    def _collect(self, model: str, known: Sequence[str], named: Sequence[str]) -> ModelGarbage:
        """Decide again under the lock, and carry it out."""
        with (
            held_lock(
                self.repository.locks,
                model,
                seconds=self.lock_seconds,
                progress=self.progress,
            ) as held,
            self.progress("collect") as describe,
        ):
            holdings = self._settled(model)
            plan = plan_collection(holdings, self._needs(known, named))
            remove_versions(self.repository, holdings, plan.garbage, action=GC, held=held)
            size = sum(g.size for g in plan.garbage)
            describe(f"{model}: {len(plan.garbage)} versions removed, {size} bytes")
            return plan

    def _settled(self, model: str) -> Holdings:
        """What there is once no server loads the model.

        Triton reads the folders of all versions for each load, and fails if one vanishes meanwhile.
        """
        deadline = time.monotonic() + _LOADING_SECONDS
        while True:
            holdings = survey(self.repository, model)
            if not holdings.is_loading:
                return holdings
            if time.monotonic() > deadline:
                raise ConflictError(
                    f"Triton has been loading {model} for {_LOADING_SECONDS:.0f} s",
                    hint="run the command again when the load is over",
                )
            time.sleep(0.5)

    def _needs(self, known: Sequence[str], named: Sequence[str]) -> Needs:
        return Needs(
            wishes=wishes_of(self.registry.registered_models()),
            pins=pins_of(self.repository, known),
            keep=self.keep,
            named=frozenset(named),
        )


def models_in(keys: Iterable[str]) -> list[str]:
    """The models that objects with these keys are of."""
    names = {model for model, slash, _rest in (key.partition("/") for key in keys) if slash}
    return sorted(name for name in names if is_legal_model(name))


def remove_versions(
    repository: Repository,
    holdings: Holdings,
    garbage: Sequence[Garbage],
    *,
    action: str,
    held: Held,
) -> None:
    """Remove version folders; call with the lock of the model held, when no load runs.

    With the last folder of a model that has no config, the model goes whole.
    """
    if holdings.config is None and holdings.folders.keys() <= {g.version for g in garbage}:
        # Alone, this object would be a model that Triton cannot load.
        held.require_held()
        repository.store.delete([f"{holdings.model}/{WARMUP_MARKER}"])
    for each in garbage:
        _remove_version(repository, holdings, each, action, held)


def _remove_version(
    repository: Repository, holdings: Holdings, garbage: Garbage, action: str, held: Held
) -> None:
    model, version = holdings.model, garbage.version
    held.require_held()
    if not holdings.is_collected(version):
        release = holdings.releases.get(version)
        repository.journal.append(
            model,
            action=action,
            event=COLLECTED,
            version=version,
            previous=None,
            reason=garbage.why,
            digest=release.manifest.digest if release else "",
        )
    held.require_held()
    repository.store.delete([f"{model}/{version}/{MANIFEST_NAME}"])
    repository.store.delete([o.key for o in holdings.folders.get(version, ())])
