"""What the mirror remembers of each model, so that it need not ask or read again what it knows.

Records are an accelerator, never the truth: without them everything local is read and every config
is fetched once more. Each is replaced in one step, after what it describes is in place.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.mirror.listing import ConfigIdentity
from pipeline.serialization import from_json, to_json


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """How a file looked when it was verified."""

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """A version folder that was verified.

    Attributes:
        manifest_sha256: Of its ``manifest.json``.
        files: How its files looked then, by path in the folder.
        seal: What checked its signature; empty if nothing did.
    """

    manifest_sha256: str
    files: Mapping[str, FileState]
    seal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """One local model.

    Attributes:
        source: The config in the store that the local one was taken from; None if it must be
            fetched again.
        named: The versions that the local config names.
        versions: The version folders that are in place and were verified.
        previous: The version that was served before: kept for a rollback at once.
        unneeded_since: When other versions were first seen to be needed no longer, in seconds since
            1970.
        newest_mtime_ns: The newest modification time that Triton may have seen; the next config is
            made newer, whatever the clock says.
    """

    source: ConfigIdentity | None = None
    named: tuple[int, ...] = ()
    versions: Mapping[int, VersionRecord] = field(default_factory=dict)
    previous: int | None = None
    unneeded_since: Mapping[int, float] = field(default_factory=dict)
    newest_mtime_ns: int = 0


def read_record(path: Path) -> ModelRecord:
    """The record of a model; an empty one if there is none that can be read."""
    try:
        document = json.loads(path.read_bytes())
        for name in ("versions", "unneeded_since"):
            document[name] = {int(key): value for key, value in document[name].items()}
        record: ModelRecord = from_json(ModelRecord, document)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ModelRecord()
    return record


def write_record(path: Path, record: ModelRecord) -> None:
    """Replace the record of a model in one step."""
    write_atomically(path, json.dumps(to_json(record), indent=1).encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file in one step, on disk before this returns."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
