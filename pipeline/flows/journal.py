"""What was published, when and by whom: releases and an append-only journal.

Both live below the records URL, never inside the model repository, where Triton would take them for
models. Layout: ``MODEL/releases/VERSION/{release.json,golden.npz}`` and
``MODEL/journal/00000001.json`` and so on.
"""

from __future__ import annotations

import json
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from zipfile import BadZipFile

from pipeline.artifacts import Release
from pipeline.errors import ConflictError
from pipeline.flows.readback import create_verified, put_verified
from pipeline.locks.holder import this_user
from pipeline.manifest import InvalidManifestError, manifest_from_bytes
from pipeline.samples import Samples, samples_from_bytes
from pipeline.serialization import from_json, to_json
from pipeline.stores import Store, StoredObject

PROMOTE: Final = "promote"
PUBLISH: Final = "publish"
ROLLBACK: Final = "rollback"
GC: Final = "gc"
FSCK: Final = "fsck"
RETIRE: Final = "retire"

COMMITTING: Final = "committing"
CONFIRMED: Final = "confirmed"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"
COLLECTED: Final = "collected"
REPAIRED: Final = "repaired"

_CARE: Final = frozenset({COLLECTED, REPAIRED})
"""Events that are no part of an attempt to serve something."""

_READERS: Final = 16
_FEW: Final = 4
"""So many entries are read one after the other, since most models have no more new ones."""

_MOST_KNOWN: Final = 10_000
"""Entries never change, so those that were read are kept, as long as they are so few."""

_ENTRY_KEY: Final = re.compile(r"(?P<number>[0-9]{8,})\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One event in the life of a Triton model.

    Attributes:
        action: ``promote``, ``publish`` or ``rollback``; ``gc``, ``fsck`` or ``retire`` for what
            is done to the store alone.
        event: ``committing`` before the config is written; then ``confirmed``, ``failed`` or
            ``interrupted``, unless the run was killed. ``collected`` before the files of a version
            are removed, ``repaired`` after something was put right.
        version: The version to be served, or the one that was cared for.
        previous: The version to return to if this one fails; None for a new model.
        at: When, in UTC.
        by: Who, as user and host.
        reason: Why it was not confirmed, or collected, or what was repaired; empty otherwise.
        digest: Digest of the release; empty in entries of older writers.
        together: All releases, as ``MODEL/VERSION``, that are served or taken back as one with this
            one; empty for a model on its own.
    """

    action: str
    event: str
    version: int
    previous: int | None
    at: str
    by: str
    reason: str = ""
    digest: str = ""
    together: tuple[str, ...] = ()


class Journal:
    """Releases and events of all models of one repository.

    An entry is read once, as long as the store lists it unchanged.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="journal")
        self._known: dict[StoredObject, JournalEntry] = {}

    @property
    def store(self) -> Store:
        """Where the records are."""
        return self._store

    def entries(self, model: str) -> list[JournalEntry]:
        """All events of a model, oldest first.

        Raises:
            ConflictError: An entry cannot be read, so that what was served is not known.
        """
        entries, damage = self.readable_entries(model)
        if damage:
            raise ConflictError(
                f"the journal of {model} is damaged: {'; '.join(damage[:3])}",
                hint=f"look at: tritonpipe fsck {model}",
            )
        return entries

    def readable_entries(self, model: str) -> tuple[list[JournalEntry], list[str]]:
        """The events of a model that can be read, oldest first; and what cannot, in words."""
        listed = [stored for _number, stored in self._listed(model)]
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        found = {stored: self._known[stored] for stored in listed if stored in self._known}
        damage = []
        unknown = [stored for stored in listed if stored not in found]
        for stored, data in zip(unknown, self._read([o.key for o in unknown]), strict=True):
            try:
                found[stored] = from_json(JournalEntry, json.loads(data or b""))
            except (ValueError, TypeError) as error:
                damage.append(f"{stored.key} cannot be read ({error})")
        self._known |= found
        return [found[stored] for stored in listed if stored in found], damage

    def _read(self, keys: list[str]) -> list[bytes | None]:
        """Several objects; one request after the other takes minutes from a store far away."""
        if len(keys) <= _FEW:
            return [self._store.get(key) for key in keys]
        return list(self._readers.map(self._store.get, keys))

    def entry_numbers(self, model: str) -> list[int]:
        """The numbers of a model's entries; without a gap if none was ever taken away."""
        return [number for number, _stored in self._listed(model)]

    def _listed(self, model: str) -> list[tuple[int, StoredObject]]:
        found = []
        for stored in self._store.list_folder(f"{model}/journal"):
            match = _ENTRY_KEY.fullmatch(stored.key.rpartition("/")[2])
            if match:
                found.append((int(match["number"]), stored))
        return sorted(found, key=lambda each: each[0])

    def append(
        self,
        model: str,
        *,
        action: str,
        event: str,
        version: int,
        previous: int | None,
        reason: str = "",
        digest: str = "",
        together: tuple[str, ...] = (),
    ) -> None:
        """Add one event; never replaces one."""
        entry = JournalEntry(
            action=action,
            event=event,
            version=version,
            previous=previous,
            reason=reason,
            digest=digest,
            together=together,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            by=this_user(),
        )
        data = json.dumps(to_json(entry), indent=1).encode()
        number = 1 + max((number for number, _stored in self._listed(model)), default=0)
        while not create_verified(self._store, f"{model}/journal/{number:08d}.json", data):
            number += 1

    def release(self, model: str, version: int) -> Release | None:
        """The recorded release, or None.

        Raises:
            ConflictError: The record is damaged.
        """
        data = self._store.get(f"{model}/releases/{version}/release.json")
        if data is None:
            return None
        try:
            document: dict[str, Any] = json.loads(data)
            return Release(
                manifest=manifest_from_bytes(document["manifest"].encode()),
                config=document["config"],
                relative_tolerance=document["relative_tolerance"],
                absolute_tolerance=document["absolute_tolerance"],
            )
        except (ValueError, KeyError, TypeError, AttributeError, InvalidManifestError) as error:
            raise ConflictError(
                f"the record of release {model}/{version} is damaged: {error}",
                hint="register the model as a new version and promote that",
            ) from error

    def golden(self, model: str, version: int) -> Samples | None:
        """The golden samples of a recorded release, or None.

        Raises:
            ConflictError: They are damaged.
        """
        data = self._store.get(f"{model}/releases/{version}/golden.npz")
        try:
            return None if data is None else samples_from_bytes(data)
        except (ValueError, LookupError, OSError, EOFError, BadZipFile, zlib.error) as error:
            raise ConflictError(
                f"the golden samples of release {model}/{version} are damaged: {error}",
                hint="register the model as a new version and promote that",
            ) from error

    def keep(self, release: Release, samples: Samples) -> None:
        """Record a release before it is committed; the golden samples first."""
        manifest = release.manifest
        folder = f"{manifest.model}/releases/{manifest.version}"
        document = {
            "manifest": manifest.to_bytes().decode(),
            "config": release.config,
            "relative_tolerance": release.relative_tolerance,
            "absolute_tolerance": release.absolute_tolerance,
        }
        put_verified(self._store, f"{folder}/golden.npz", samples.to_bytes())
        release_record = json.dumps(document, indent=1).encode()
        put_verified(self._store, f"{folder}/release.json", release_record)


def served_history(entries: list[JournalEntry], committed: int | None) -> list[int]:
    """Versions that were served, oldest first, ending with the one served now.

    A promotion adds its version; a rollback takes away everything after the version it returns to.
    A run that was killed left no outcome: its version was served if the store still names it, or
    if the next run took it for what to return to.
    """
    history: list[int] = []
    entries = attempts(entries)
    for number, entry in enumerate(entries):
        if entry.event == COMMITTING:
            outcome = _outcome(entries, number)
            survivor = committed if outcome is None else outcome.previous
            was_killed = outcome is None or outcome.event == COMMITTING
            if not was_killed or entry.version != survivor:
                continue
        elif entry.event != CONFIRMED:
            continue
        if entry.action == ROLLBACK and entry.version in history:
            while history[-1] != entry.version:
                history.pop()
        elif not history or history[-1] != entry.version:
            history.append(entry.version)
    return history


def attempts(entries: list[JournalEntry]) -> list[JournalEntry]:
    """The events of attempts to serve something, without those that only cared for the store."""
    return [e for e in entries if e.event not in _CARE]


def open_attempt(entries: list[JournalEntry]) -> JournalEntry | None:
    """The last commit, if its outcome was never written: its run was killed.

    A run that was overtaken may still write how it ended, after the commit of the one that
    overtook it; that is not the outcome of the latter.
    """
    events = attempts(entries)
    commits = [number for number, entry in enumerate(events) if entry.event == COMMITTING]
    is_open = bool(commits) and _outcome(events, commits[-1]) is None
    return events[commits[-1]] if is_open else None


def _outcome(entries: list[JournalEntry], number: int) -> JournalEntry | None:
    """What followed a commit: its own outcome, or the commit of another run; None if neither."""
    version = entries[number].version
    later = entries[number + 1 :]
    return next((e for e in later if e.event == COMMITTING or e.version == version), None)


def was_confirmed(entries: list[JournalEntry], version: int) -> bool:
    """Whether a version, as it is now, ever answered as expected; then it never changes again.

    Once it was collected, it can be published again, possibly from other bytes.
    """
    return _last_of(entries, version, {CONFIRMED, COLLECTED}) == CONFIRMED


def was_collected(entries: list[JournalEntry], version: int) -> bool:
    """Whether the files of a version were removed, or were about to be, and none came since."""
    return _last_of(entries, version, {CONFIRMED, COMMITTING, COLLECTED}) == COLLECTED


def _last_of(entries: list[JournalEntry], version: int, events: set[str]) -> str:
    """The last of these events of a version; empty if there is none."""
    found = [e.event for e in entries if e.version == version and e.event in events]
    return found[-1] if found else ""
