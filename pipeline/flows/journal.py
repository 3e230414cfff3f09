"""What was published, when and by whom: releases and an append-only journal.

Both live below the records URL, never inside the model repository, where Triton would take them for
models. Layout: ``MODEL/releases/VERSION/{release.json,golden.npz}`` and
``MODEL/journal/00000001.json`` and so on.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.artifacts import Release
from pipeline.errors import ConflictError
from pipeline.manifest import InvalidManifestError, manifest_from_bytes
from pipeline.samples import Samples, samples_from_bytes
from pipeline.serialization import from_json, to_json
from pipeline.stores import Store

PROMOTE: Final = "promote"
ROLLBACK: Final = "rollback"

COMMITTING: Final = "committing"
CONFIRMED: Final = "confirmed"
FAILED: Final = "failed"
INTERRUPTED: Final = "interrupted"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One event in the life of a Triton model.

    Attributes:
        action: ``promote`` or ``rollback``.
        event: ``committing`` before the config is written; then ``confirmed``, ``failed`` or
            ``interrupted``, unless the run was killed.
        version: The version to be served.
        previous: The version to return to if this one fails; None for a new model.
        at: When, in UTC.
        by: Who, as user and host.
        reason: Why it was not confirmed; empty otherwise.
    """

    action: str
    event: str
    version: int
    previous: int | None
    at: str
    by: str
    reason: str = ""


class Journal:
    """Releases and events of all models of one repository."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def entries(self, model: str) -> list[JournalEntry]:
        """All events of a model, oldest first."""
        keys = [o.key for o in self._store.list_folder(f"{model}/journal")]
        documents = (self._store.get(key) for key in sorted(keys))
        return [from_json(JournalEntry, json.loads(data)) for data in documents if data]

    def append(
        self,
        model: str,
        *,
        action: str,
        event: str,
        version: int,
        previous: int | None,
        reason: str = "",
    ) -> None:
        """Add one event; never replaces one."""
        entry = JournalEntry(
            action=action,
            event=event,
            version=version,
            previous=previous,
            reason=reason,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            by=f"{_user()}@{socket.gethostname()}",
        )
        data = json.dumps(to_json(entry), indent=1).encode()
        keys = [o.key for o in self._store.list_folder(f"{model}/journal")]
        number = 1 + max(
            (int(key.rsplit("/", 1)[1].removesuffix(".json")) for key in keys), default=0
        )
        while not self._store.create(f"{model}/journal/{number:08d}.json", data):
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
        """The golden samples of a recorded release, or None."""
        data = self._store.get(f"{model}/releases/{version}/golden.npz")
        return None if data is None else samples_from_bytes(data)

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
        self._store.put(f"{folder}/golden.npz", samples.to_bytes())
        self._store.put(f"{folder}/release.json", json.dumps(document, indent=1).encode())


def served_history(entries: list[JournalEntry], committed: int | None) -> list[int]:
    """Versions that were served, oldest first, ending with the one served now.

    A promotion adds its version; a rollback takes away everything after the version it returns to.
    A run that was killed left no outcome: its version was served if the store still names it, or
    if the next run took it for what to return to.
    """
    history: list[int] = []
    for number, entry in enumerate(entries):
        if entry.event == COMMITTING:
            is_last = number == len(entries) - 1
            survivor = committed if is_last else entries[number + 1].previous
            was_killed = is_last or entries[number + 1].event == COMMITTING
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


def open_attempt(entries: list[JournalEntry]) -> JournalEntry | None:
    """The last event, if it is a commit whose outcome was never written: its run was killed."""
    return entries[-1] if entries and entries[-1].event == COMMITTING else None


def was_confirmed(entries: list[JournalEntry], version: int) -> bool:
    """Whether a version ever answered as expected; such a version never changes again."""
    return any(e.event == CONFIRMED and e.version == version for e in entries)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        return str(os.getuid())
