"""Everything that a check of one model looks at, as a value; damage is part of it, not an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeAlias

from pipeline.artifacts import Release
from pipeline.ensembles import steps_of
from pipeline.errors import ConflictError, UnavailableError
from pipeline.flows.holdings import Holdings, ready_versions, recorded_versions, version_folders
from pipeline.flows.journal import open_attempt
from pipeline.flows.readback import reads_as
from pipeline.flows.replicas import Replicas
from pipeline.flows.repository import Repository
from pipeline.manifest import MANIFEST_NAME, FileDigest
from pipeline.model_config import CONFIG_NAME
from pipeline.stores import StoredObject
from pipeline.triton import TritonClient, VersionState

Index: TypeAlias = Mapping[str, Mapping[str, Mapping[int, VersionState]] | None]
"""What each server that answers says of each model, by the server's address; None if its index is
closed to us."""

_READERS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is there of one model.

    Attributes:
        holdings: Everything that could be read.
        objects: Everything below the model's folder, by key.
        manifests: The bytes of each version folder's manifest; None where there is none.
        journal_damage: Entries of the journal that cannot be read, in words.
        missing_entries: Numbers of entries that are gone.
        record_damage: Releases whose record cannot be read, in words.
        without_golden: Releases whose golden samples are missing or cannot be read.
        held_by: Steps of this ensemble with an attempt without an outcome: until it is finished,
            the ensemble may keep to the versions that it had.
    """

    holdings: Holdings
    objects: Mapping[str, StoredObject]
    manifests: Mapping[int, bytes | None]
    journal_damage: tuple[str, ...]
    missing_entries: tuple[int, ...]
    record_damage: Mapping[int, str]
    without_golden: frozenset[int]
    held_by: tuple[str, ...]

    @property
    def model(self) -> str:
        """Name of the Triton model."""
        return self.holdings.model

    @property
    def named(self) -> tuple[int, ...]:
        """The versions that the config names; none if it cannot be read."""
        try:
            return self.holdings.committed
        except ConflictError:
            return ()

    @property
    def kept(self) -> frozenset[int]:
        """Versions whose files must be whole: named, proven or about to be."""
        attempt = self.holdings.attempt
        tried = {v for v in (attempt.version, attempt.previous) if v} if attempt else set()
        return frozenset({*self.named, *self.holdings.proven, *tried})

    @property
    def expected(self) -> int | None:
        """The version that was proven last and is to be served now.

        None if there is none, also after the model was taken away.
        """
        history = self.holdings.served_before(max(self.named, default=None))
        return history[-1] if history and not self.holdings.is_collected(history[-1]) else None


def examine(repository: Repository, model: str, index: Index) -> Evidence:
    """Read everything about a model; writes nothing.

    Raises:
        UnavailableError: The store does not answer.
    """
    objects = {o.key: o for o in repository.store.list_folder(model)}
    folders = version_folders(objects.values(), model)
    entries, journal_damage = repository.journal.readable_entries(model)
    numbers = repository.journal.entry_numbers(model)
    releases: dict[int, Release] = {}
    record_damage: dict[int, str] = {}
    without_golden = set()
    for version in recorded_versions(repository.records, model):
        try:
            release = repository.journal.release(model, version)
        except ConflictError as error:
            record_damage[version] = error.message
            continue
        if release is None:
            continue
        releases[version] = release
        if not _has_golden(repository, model, version):
            without_golden.add(version)
    holdings = Holdings(
        model=model,
        folders=folders,
        config=repository.store.get(f"{model}/{CONFIG_NAME}"),
        entries=tuple(entries),
        releases=releases,
        servers={
            replica.http_address: _states(replica, index[replica.http_address], model, folders)
            for replica in repository.replicas
            if replica.http_address in index
        },
    )
    return Evidence(
        holdings=holdings,
        objects=objects,
        manifests={v: repository.store.get(f"{model}/{v}/{MANIFEST_NAME}") for v in folders},
        journal_damage=tuple(journal_damage),
        missing_entries=tuple(sorted(set(range(1, max(numbers, default=0))) - set(numbers))),
        record_damage=record_damage,
        without_golden=frozenset(without_golden),
        held_by=_steps_in_attempt(repository, holdings),
    )


def _steps_in_attempt(repository: Repository, holdings: Holdings) -> tuple[str, ...]:
    try:
        steps = {step.model for step in steps_of((holdings.config or b"").decode())}
    except ValueError:
        return ()
    entries = {step: repository.journal.readable_entries(step)[0] for step in sorted(steps)}
    return tuple(step for step in entries if open_attempt(entries[step]))


def ask_servers(replicas: Replicas) -> tuple[Index, dict[str, str]]:
    """What each server holds; and why those that do not answer do not, by address."""
    index: dict[str, dict[str, dict[int, VersionState]] | None] = {}
    silent: dict[str, str] = {}
    for replica in replicas:
        try:
            replica.require_live()
        except UnavailableError as error:
            silent[replica.http_address] = error.message
            continue
        try:
            index[replica.http_address] = replica.all_versions()
        except UnavailableError:
            index[replica.http_address] = None
    return index, silent


def _states(
    replica: TritonClient,
    models: Mapping[str, Mapping[int, VersionState]] | None,
    model: str,
    versions: Iterable[int],
) -> Mapping[int, VersionState]:
    if models is not None:
        return models.get(model, {})
    return ready_versions(replica, model, versions)


def altered_files(repository: Repository, release: Release) -> list[str]:
    """Files of a release whose bytes are not those that were published; reads all of them.

    Files that are missing or of another size are not read: they are found without reading.

    Raises:
        UnavailableError: The store does not answer, or this machine cannot keep a copy.
    """
    manifest = release.manifest
    folder = f"{manifest.model}/{manifest.version}"
    sizes = {o.key: o.size for o in repository.store.list_folder(folder)}
    whole = [f for f in manifest.files if sizes.get(f"{folder}/{f.path}") == f.size]

    def is_altered(file: FileDigest) -> bool:
        try:
            return not reads_as(repository.store, f"{folder}/{file.path}", file)
        except ConflictError:  # collected since it was listed
            return False

    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(is_altered, whole))
    return [f"{folder}/{f.path}" for f, is_other in zip(whole, found, strict=True) if is_other]


def _has_golden(repository: Repository, model: str, version: int) -> bool:
    try:
        return repository.journal.golden(model, version) is not None
    except ConflictError:
        return False
