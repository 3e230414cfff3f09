"""Which versions of a model somebody needs or could need; everything else is garbage.

Kept is whatever a config names, an alias wishes, a server holds, an ensemble names or an attempt is
about; what a rollback would return to; and the last proven releases. All of this is decided from
values, without a server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import ConflictError
from pipeline.flows.holdings import Holdings, pinned_versions, recorded_versions
from pipeline.flows.journal import ROLLBACK, was_collected
from pipeline.flows.repository import Repository
from pipeline.model_config import CONFIG_NAME
from pipeline.registries import RegisteredModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """One version that nobody needs.

    Attributes:
        version: Its number.
        why: Why it is not needed, in words.
        objects: How many objects its folder has.
        size: Their bytes together.
    """

    version: int
    why: str
    objects: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGarbage:
    """What is kept and what is not of one model.

    Attributes:
        model: Triton model.
        kept: Versions that are kept, with the reasons.
        garbage: Versions that were removed, or would be.
        problem: Why nothing of this model was decided; empty otherwise.
    """

    model: str
    kept: Mapping[int, tuple[str, ...]]
    garbage: tuple[Garbage, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What others need of all models.

    Attributes:
        wishes: Versions of registered models that an alias points at, with the aliases' names.
        pins: Versions of Triton models that an ensemble names, with the ensembles' names.
        keep: How many proven releases of each model are kept.
        named: Models that were asked for by name: whatever no record knows of them is a leftover.
            Otherwise it can be what somebody else is just uploading.
    """

    wishes: Mapping[tuple[str, int], tuple[str, ...]]
    pins: Mapping[tuple[str, int], tuple[str, ...]]
    keep: int
    named: frozenset[str] = frozenset()


def plan_collection(holdings: Holdings, needs: Needs) -> ModelGarbage:
    """What is kept and what is not; pure.

    Raises:
        ConflictError: The config cannot be read, does not name the versions to serve, or names one
            that was not published by this tool.
    """
    foreign = [v for v in holdings.committed if v not in holdings.releases]
    if foreign:
        raise ConflictError(
            f"{holdings.model}/{foreign[0]} is served and has no record here: it was not published "
            "by this tool",
            hint="leave the model to whoever published it",
        )
    needed = _needed(holdings, needs)
    kept = {v: tuple(needed[v]) for v in holdings.folders if v in needed}
    garbage = [garbage_of(holdings, v) for v in holdings.folders if v not in needed]
    # A proven release whose files are gone is given up once it would be collected anyway.
    lost = [v for v in holdings.proven if v not in holdings.folders and v not in needed]
    garbage += [Garbage(version=v, why="its files are gone", objects=0, size=0) for v in lost]
    return ModelGarbage(model=holdings.model, kept=kept, garbage=tuple(garbage))


def _needed(holdings: Holdings, needs: Needs) -> dict[int, list[str]]:
    reasons: dict[int, list[str]] = {}

    def need(version: int | None, why: str) -> None:
        if version is not None:
            reasons.setdefault(version, []).append(why)

    for version in holdings.committed:
        need(version, "committed")
    if holdings.attempt is not None:
        need(holdings.attempt.version, "an attempt without an outcome is about it")
        need(holdings.attempt.previous, "an attempt without an outcome would return to it")
    for target in rollback_targets(holdings):
        need(target, "a rollback would return to it")
    whole = [v for v in holdings.proven if v in holdings.folders]
    for version in whole[-needs.keep :]:
        need(version, f"one of the last {needs.keep} proven")
    if not holdings.is_recorded and holdings.model not in needs.named:
        for version in holdings.folders:
            need(version, f"no record knows the model; to remove it: gc {holdings.model}")
    for version in {*holdings.folders, *holdings.proven}:
        for alias in _wished(holdings, version, needs):
            need(version, f"wished by {alias}")
        for ensemble in needs.pins.get((holdings.model, version), ()):
            need(version, f"named by {ensemble}")
        for address, state in holdings.held(version).items():
            need(version, f"{state} at {address}")
    return reasons


def rollback_targets(holdings: Holdings) -> set[int]:
    """What a rollback would return to, whichever of the committed versions it starts from."""
    targets: set[int] = set()
    starts: set[int | None] = {*holdings.committed} or {None}
    if holdings.attempt is not None and holdings.attempt.previous is not None:
        starts.add(holdings.attempt.previous)  # what is served once the attempt has failed
    for committed in starts:
        history = holdings.served_before(committed)
        # Without a config, the last one is what has to be restored.
        earlier = [v for v in history if v != committed]
        targets |= set(earlier[-1:] if committed is not None else history[-2:])
    if holdings.attempt is not None and holdings.attempt.action == ROLLBACK:
        targets.add(holdings.attempt.version)
    return targets


def _wished(holdings: Holdings, version: int, needs: Needs) -> list[str]:
    """Aliases that point at a version, whatever registered model it may come from."""
    lineages = {v: r.manifest.lineage for v, r in holdings.releases.items()}
    names = {lineage.registered_model for lineage in lineages.values()} | {holdings.model}
    wanted = {(name, version) for name in names}
    if version in lineages:
        wanted.add((lineages[version].registered_model, lineages[version].registered_version))
    return sorted({alias for key in wanted for alias in needs.wishes.get(key, ())})


def garbage_of(holdings: Holdings, version: int) -> Garbage:
    """A version folder as garbage, with the reason in words."""
    events = [e.event for e in holdings.entries if e.version == version]
    if holdings.is_collected(version):
        why = "its collection was not finished"
    elif version in holdings.proven:
        why = "superseded"
    else:
        why = "never proven" if events else "never committed"
    objects = holdings.folders[version]
    return Garbage(
        version=version, why=why, objects=len(objects), size=sum(o.size for o in objects)
    )


def wishes_of(models: Sequence[RegisteredModel]) -> dict[tuple[str, int], tuple[str, ...]]:
    """Versions of registered models that an alias points at, with the aliases' names."""
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    for model in models:
        for alias, version in sorted(model.aliases.items()):
            key = (model.name, version)
            found[key] = (*found.get(key, ()), f"{model.name}@{alias}")
    return found


def pins_of(
    repository: Repository, models: Sequence[str]
) -> dict[tuple[str, int], tuple[str, ...]]:
    """Versions that ensembles name: the committed ones, and those that could be committed again."""
    found: dict[tuple[str, int], tuple[str, ...]] = {}
    for model in models:
        for source, config in _configs(repository, model):
            for pin in pinned_versions(model, config):
                found[pin] = (*found.get(pin, ()), source)
    return found


def _configs(repository: Repository, model: str) -> Iterator[tuple[str, bytes]]:
    """The config of a model; of an ensemble, those of its recorded releases, too."""
    config = repository.store.get(f"{model}/{CONFIG_NAME}")
    try:
        if config is not None and not pinned_versions(model, config):
            return
    except ConflictError:
        config = None  # what it was before is recorded
    if config is not None:
        yield model, config
    entries, _damage = repository.journal.readable_entries(model)
    for version in recorded_versions(repository.records, model):
        try:
            release = repository.journal.release(model, version)
        except ConflictError:
            continue
        if release is not None and not was_collected(entries, version):
            yield f"{model}/{version}", release.config.encode()
