"""What was published, when and by whom: releases and an append-only journal.

Both live below the records URL, never inside the model repository, where Triton would take them for
models. Layout: ``MODEL/releases/VERSION/{release.json,golden.npz}`` and
``MODEL/journal/00000001.json`` and so on.
"""

from __future__ import annotations

import getpass
import json
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

COMMITTING: Final = "committing"
CONFIRMED: Final = "confirmed"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalEntry:
    """One event in the life of a Triton model.

    Attributes:
        action: ``promote`` or ``rollback``.
        event: ``committing`` before the config is written, then ``confirmed`` or ``failed``.
        version: The version to be served.
        previous: The version that was served before; None for a new model.
        at: When, in UTC.
        by: Who, as user and host.
        reason: Why it failed; empty otherwise.
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

    def models(self) -> list[str]:
        """Names of the models that have a record."""
        return sorted({o.key.split("/", 1)[0] for o in self._store.list_folder("") if "/" in o.key})

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
            by=f"{getpass.getuser()}@{socket.gethostname()}",
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
    An event whose outcome was never written counts if the store says that it was committed.
    """
    history: list[int] = []
    for number, entry in enumerate(entries):
        is_last = number == len(entries) - 1
        is_unfinished = entry.event == COMMITTING and is_last and entry.version == committed
        if entry.event != CONFIRMED and not is_unfinished:
            continue
        if entry.action == "rollback" and entry.version in history:
            while history[-1] != entry.version:
                history.pop()
        elif not history or history[-1] != entry.version:
            history.append(entry.version)
    return history


def was_confirmed(entries: list[JournalEntry], version: int) -> bool:
    """Whether a version ever answered as expected; such a version never changes again."""
    return any(e.event == CONFIRMED and e.version == version for e in entries)
