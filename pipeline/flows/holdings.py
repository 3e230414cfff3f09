"""What store, records and servers hold of one model: what garbage collection and checks look at.

Nothing here decides; a :class:`Holdings` is a value, so that what may be removed and what is wrong
can be computed, and tested, without any server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.artifacts import Release
from pipeline.ensembles import steps_of
from pipeline.errors import ConflictError, UnavailableError
from pipeline.flows.journal import (
    JournalEntry,
    open_attempt,
    served_history,
    was_collected,
    was_confirmed,
)
from pipeline.flows.replicas import Replicas
from pipeline.flows.repository import Repository
from pipeline.model_config import CONFIG_NAME, served_versions
from pipeline.repository_names import is_version
from pipeline.stores import Store, StoredObject
from pipeline.triton import TritonClient, VersionState

HELD_STATES: Final = frozenset({"READY", "LOADING", "UNLOADING"})
"""States of a version that a server reads from, or answers with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Everything known of one model.

    Attributes:
        model: Name of the Triton model.
        folders: Objects of each version folder.
        config: Bytes of its ``config.pbtxt``; None if there is none.
        entries: Its journal, oldest first.
        releases: Its recorded releases that can be read.
        servers: What each server says of its versions, by the server's address.
    """

    model: str
    folders: Mapping[int, tuple[StoredObject, ...]]
    config: bytes | None
    entries: tuple[JournalEntry, ...]
    releases: Mapping[int, Release]
    servers: Mapping[str, Mapping[int, VersionState]]

    @property
    def committed(self) -> tuple[int, ...]:
        """The versions that the config names.

        Raises:
            ConflictError: It cannot be read, or does not name its versions: then every folder may
                be one that is served.
        """
        return () if self.config is None else named_versions(self.model, self.config)

    @property
    def proven(self) -> tuple[int, ...]:
        """Versions that answered as expected and were not collected since; the last one last."""
        confirmed = [e.version for e in self.entries if e.event == "confirmed"]
        last = dict.fromkeys(reversed(confirmed))
        return tuple(v for v in reversed(last) if was_confirmed(list(self.entries), v))

    @property
    def attempt(self) -> JournalEntry | None:
        """The attempt without an outcome, if there is one."""
        return open_attempt(list(self.entries))

    def served_before(self, committed: int | None) -> tuple[int, ...]:
        """What was served, oldest first, up to ``committed``."""
        return tuple(served_history(list(self.entries), committed))

    @property
    def is_recorded(self) -> bool:
        """Whether anything of this model was ever published by this tool."""
        return bool(self.entries or self.releases)

    def is_collected(self, version: int) -> bool:
        """Whether its files were to be removed, and none were published since."""
        return was_collected(list(self.entries), version)

    def held(self, version: int) -> dict[str, str]:
        """The servers that hold a version, with its state."""
        states = {address: found.get(version) for address, found in self.servers.items()}
        return {
            address: state.state
            for address, state in states.items()
            if state is not None and state.state in HELD_STATES
        }

    @property
    def is_loading(self) -> bool:
        """Whether a server loads a version of it at this moment."""
        return any(s.state == "LOADING" for found in self.servers.values() for s in found.values())


def survey(repository: Repository, model: str) -> Holdings:
    """Read everything known of a model; writes nothing.

    Raises:
        ConflictError: The journal or a record is damaged.
        UnavailableError: Store or a server do not answer.
    """
    folders = version_folders(repository.store.list_folder(model), model)
    recorded = recorded_versions(repository.records, model)
    releases = {v: repository.journal.release(model, v) for v in recorded}
    versions = {*folders, *recorded}
    return Holdings(
        model=model,
        folders=folders,
        config=repository.store.get(f"{model}/{CONFIG_NAME}"),
        entries=tuple(repository.journal.entries(model)),
        releases={v: release for v, release in releases.items() if release},
        servers=_served(repository.replicas, model, versions),
    )


def version_folders(
    objects: Iterable[StoredObject], model: str
) -> dict[int, tuple[StoredObject, ...]]:
    """The objects of a model by the version whose folder they are in; others are left out."""
    found: dict[int, list[StoredObject]] = {}
    for stored in objects:
        version, slash, _path = stored.key.removeprefix(f"{model}/").partition("/")
        if slash and is_version(version):
            found.setdefault(int(version), []).append(stored)
    return {version: tuple(found[version]) for version in sorted(found)}


def recorded_versions(records: Store, model: str) -> list[int]:
    """The versions of which anything is recorded as a release."""
    keys = (o.key.split("/") for o in records.list_folder(f"{model}/releases"))
    names = {parts[2] for parts in keys if len(parts) > 3}
    return sorted(int(name) for name in names if is_version(name))


def named_versions(model: str, config: bytes) -> tuple[int, ...]:
    """The versions that a config names.

    Raises:
        ConflictError: It cannot be read, or leaves the choice to Triton.
    """
    try:
        versions = served_versions(config.decode())
    except ValueError as error:
        raise _unreadable(model, error) from error
    if not versions:
        raise ConflictError(
            f"{model}/{CONFIG_NAME} does not name the versions to serve: this tool did not write "
            "it, and any version may be served",
            hint="leave the model to whoever published it",
        )
    return versions


def pinned_versions(model: str, config: bytes) -> set[tuple[str, int]]:
    """Versions of other models that the steps of an ensemble name; none for any other model.

    Raises:
        ConflictError: The config cannot be read.
    """
    try:
        steps = steps_of(config.decode())
    except ValueError as error:
        raise _unreadable(model, error) from error
    return {(step.model, step.version) for step in steps if step.version > 0}


def _unreadable(model: str, error: ValueError) -> ConflictError:
    return ConflictError(
        f"{model}/{CONFIG_NAME} cannot be read: {error}",
        hint=f"look at: tritonpipe fsck {model}",
    )


def _served(
    replicas: Replicas, model: str, versions: Iterable[int]
) -> dict[str, dict[int, VersionState]]:
    return {r.http_address: _served_by(r, model, versions) for r in replicas}


def _served_by(
    replica: TritonClient, model: str, versions: Iterable[int]
) -> dict[int, VersionState]:
    """What a server holds of a model.

    Raises:
        UnavailableError: The server does not answer.
    """
    try:
        return replica.versions(model)
    except UnavailableError:
        # The index may be closed to us; readiness is open, but false also when nobody answers.
        ready = ready_versions(replica, model, versions)
        replica.require_live()
        return ready


def ready_versions(
    replica: TritonClient, model: str, versions: Iterable[int]
) -> dict[int, VersionState]:
    """Those of ``versions`` that are ready: all that a server tells whose index is closed to us."""
    ready = VersionState(state="READY", reason="")
    return {v: ready for v in versions if replica.is_ready(model, v)}
