"""Where releases live: an object store with S3's guarantees.

A store holds immutable bytes under keys relative to its URL. One PUT is atomic: a reader sees the
old object or the new one. Nothing else is promised across objects, which is why publication is an
order of single writes (see :mod:`pipeline.flows.publish`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """One object of a listing.

    Attributes:
        key: Relative to the store's URL.
        size: In bytes.
        etag: Changes when the bytes change; what it is made of differs between servers.
        last_modified: The server's clock at the write; whole seconds on S3.
    """

    key: str
    size: int
    etag: str
    last_modified: datetime


class Store(Protocol):
    """An object store below one URL.

    Every method raises ``SettingsError`` for wrong credentials or a missing bucket and
    ``UnavailableError`` if the server does not answer; then nothing, or the whole of the one
    object, was written.
    """

    url: str

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None if there is none."""

    def head(self, key: str) -> StoredObject | None:
        """What is known of an object without reading it, or None if there is none."""

    def put(self, key: str, data: bytes | Path) -> None:
        """Write one object, replacing any."""

    def create(self, key: str, data: bytes) -> bool:
        """Write one object only if there is none; False if there was one.

        A server that ignores conditions (``rclone serve s3``) replaces the object: two writers at
        the same moment may then both get True.
        """

    def list_folder(self, folder: str) -> list[StoredObject]:
        """All objects below ``folder/``: never those of ``folder-2/``."""

    def delete(self, keys: list[str]) -> None:
        """Remove objects; those that do not exist are not an error."""
