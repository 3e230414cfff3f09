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


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBytes:
    """An object that was read, with what the store said of it in the same answer."""

    data: bytes
    stored: StoredObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Which conditional writes a server was seen to honour. Servers that do not, do so in silence.

    Attributes:
        create: Put-if-absent refuses an object that exists.
        replace: Put-if-match refuses another ETag, and takes the right one.
        atomic: Of several writers that put-if-absent at the same moment, exactly one succeeds.
    """

    create: bool
    replace: bool
    atomic: bool

    @property
    def suffice(self) -> bool:
        """Whether several publishers can rely on the store alone."""
        return self.create and self.replace and self.atomic


class Store(Protocol):
    """An object store below one URL.

    Every method raises ``SettingsError`` for wrong credentials or a missing bucket and
    ``UnavailableError`` if the server does not answer; then nothing, or the whole of the one
    object, was written.
    """

    url: str

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None if there is none."""

    def read(self, key: str) -> StoredBytes | None:
        """The bytes of an object with the ETag that belongs to exactly these bytes, or None."""

    def head(self, key: str) -> StoredObject | None:
        """What is known of an object without reading it, or None if there is none."""

    def put(self, key: str, data: bytes | Path) -> None:
        """Write one object, replacing any."""

    def create(self, key: str, data: bytes) -> bool:
        """Put if absent: write one object only if there is none; False if there was one.

        A server that ignores conditions (``rclone serve s3``) replaces the object: two writers at
        the same moment may then both get True, see :class:`Conditions`.
        """

    def replace(self, key: str, data: bytes, *, etag: str) -> bool:
        """Put if match: write one object only if its ETag still is ``etag``; False if it is not.

        A server that ignores conditions replaces the object whatever it holds.
        """

    def download(self, key: str, path: Path) -> None:
        """Write an object into a local file, in constant memory.

        Raises:
            ConflictError: There is no such object.
        """

    def list_folder(self, folder: str) -> list[StoredObject]:
        """All objects below ``folder/``: never those of ``folder-2/``."""

    def delete(self, keys: list[str]) -> None:
        """Remove objects; those that do not exist are not an error."""


def open_store(url: str) -> Store:
    """Open the store at ``s3://BUCKET/PREFIX``, or in a local directory.

    Args:
        url: ``s3://…`` with endpoint, region, credentials and encryption from the ordinary
            ``AWS_*`` variables; or an absolute path, also as ``file://…``.

    Raises:
        SettingsError: The URL is of neither form, or the variables do not make a client.
        DependencyError: ``AWS_PROFILE`` is set and boto3, which reads profiles, is not installed.
    """
    if url.startswith(("/", "file:///")):
        from pipeline.stores.local import LocalStore

        return LocalStore(Path(url.removeprefix("file://")))
    from pipeline.stores.s3 import open_s3

    return open_s3(url)
