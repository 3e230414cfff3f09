"""Object stores, through obstore's synchronous client.

The asynchronous client aborted the interpreter at exit in 8 % of measured runs; the synchronous one
never did, also when called from several threads.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import obstore
from obstore import exceptions
from obstore.store import MemoryStore, S3Store

from pipeline.errors import ConflictError, SettingsError, TritonpipeError, UnavailableError
from pipeline.stores import StoredBytes, StoredObject
from pipeline.stores.conditional import put_if
from pipeline.stores.keys import require_key
from pipeline.stores.parts import PART, download_in_parts, put_in_parts, read_whole
from pipeline.stores.repetition import repeated

_DENIED: Final = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
_NO_BUCKET: Final = "NoSuchBucket"
_CAUSE: Final = re.compile(r'(?:message|error): "([^"]+)"')

_AUTHORITY: Final = (
    "set AWS_CA_BUNDLE to a file with the PEM certificate of its authority; that of the server "
    "itself will do only if it cannot sign others (CA:FALSE)"
)
_CREATE: Final = "create the bucket, or correct TRITONPIPE_REPOSITORY"
_REFUSED: Final = "the store refused the credentials"
_CREDENTIALS: Final = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the policy of the bucket"
_SETTINGS: Final = (
    # Without any credentials the last resort is the metadata service of an EC2 instance.
    (
        "/latest/api/token",
        "there are no credentials",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    ),
    ("403 Forbidden", _REFUSED, _CREDENTIALS),
    (_NO_BUCKET, "the bucket does not exist", _CREATE),
    (
        "InvalidCertificate",
        "the store's certificate is not signed by an authority that this machine trusts",
        _AUTHORITY,
    ),
)
"""What the text of an error contains, what it means, and what to do."""


class ObjectStore:
    """A :class:`pipeline.stores.Store` over one of obstore's stores.

    Args:
        url: For messages.
        backend: Repeats what fails.
        once: The same server, without repetitions, for conditional writes.
    """

    def __init__(
        self,
        url: str,
        backend: S3Store | MemoryStore,
        *,
        once: S3Store | MemoryStore | None = None,
    ) -> None:
        self.url = url
        self._backend = backend
        self._once = once or backend
        self._quotes: str | None = None

    def get(self, key: str) -> bytes | None:
        """The bytes of an object, or None if there is none."""
        found = self.read(key)
        return None if found is None else found.data

    def read(self, key: str) -> StoredBytes | None:
        """The bytes of an object with the ETag that belongs to exactly these bytes, or None."""
        with self._translated("read", key):
            try:
                data, meta = repeated(lambda: read_whole(self._backend, key))
                return StoredBytes(data=data, stored=_stored(meta))
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error):
                    raise
                return None

    def head(self, key: str) -> StoredObject | None:
        """What is known of an object without reading it, or None if there is none."""
        with self._translated("read", key):
            try:
                return _stored(obstore.head(self._backend, key))
            except FileNotFoundError:
                return None

    def put(self, key: str, data: bytes | Path) -> None:
        """Write one object, replacing any; large files go in parts."""
        if isinstance(data, Path):
            self.put_file(key, data, lambda _count: None)
            return
        with self._translated("write", key):
            repeated(lambda: obstore.put(self._backend, key, data, use_multipart=False))

    def put_file(self, key: str, path: Path, sent: Callable[[int], None]) -> None:
        """Write a file, telling the bytes of each part."""
        size = path.stat().st_size
        with self._translated("write", key):
            if size > PART:
                repeated(lambda: put_in_parts(self._backend, key, path, sent))
            else:
                repeated(lambda: obstore.put(self._backend, key, path, use_multipart=False))
                sent(size)

    def create(self, key: str, data: bytes) -> bool:
        """Write one object only if there is none; False if there was one.

        Looks first, so that one writer never replaces its own object on a server that ignores
        conditions.
        """
        return self.head(key) is None and self.create_blindly(key, data)

    def create_blindly(self, key: str, data: bytes) -> bool:
        """As :meth:`create`, relying on the server alone."""
        with self._translated("create", key):
            return put_if(self._once, key, data, "create")

    def replace(self, key: str, data: bytes, *, etag: str) -> bool:
        """Write one object only if its ETag still is ``etag``; False if it is not."""
        quotes = '"' if self._quotes is None else self._quotes
        with self._translated("replace", key):
            if self._put_if_match(key, data, etag, quotes):
                return True
        if self._quotes is not None:
            return False
        found = self.head(key)
        if found is None or found.etag != etag:
            return False
        # Refused although it matches: radosgw takes the quotation marks for a part of the ETag.
        self._quotes = "" if self._compares_unquoted() else '"'
        return self._quotes == "" and self.replace(key, data, etag=etag)

    def download(self, key: str, path: Path) -> None:
        """Write an object into a local file, in constant memory.

        Errors of the local file are not translated: they say nothing about the store.
        """
        with self._translated("read", key):
            try:
                repeated(lambda: download_in_parts(self._backend, key, path))
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error) or _is_of_this_machine(error):
                    raise
                raise ConflictError(f"there is no {self.url}/{key}") from error

    def list_folder(self, folder: str) -> list[StoredObject]:
        """All objects below ``folder/``, in order of key."""
        folder = folder.rstrip("/")
        prefix = folder + "/" if folder else None
        with self._translated("list", folder or None):
            found = repeated(lambda: obstore.list(self._backend, prefix=prefix).collect())
            return sorted((_stored(meta) for meta in found), key=lambda stored: stored.key)

    def delete(self, keys: list[str]) -> None:
        """Remove objects, up to 1,000 with one request; absent ones are not an error."""
        if not keys:
            return
        with self._translated("delete", keys[0]):
            for key in keys:
                require_key(key)
            try:
                repeated(lambda: obstore.delete(self._backend, keys))
            except FileNotFoundError as error:
                if _NO_BUCKET in str(error):
                    raise

    def _put_if_match(self, key: str, data: bytes, etag: str, quotes: str) -> bool:
        return put_if(self._once, key, data, {"e_tag": f"{quotes}{etag}{quotes}"})

    def _compares_unquoted(self) -> bool:
        """Whether ETags without quotation marks are honoured, tried on an object of our own.

        A file directly in a model repository is of no interest to Triton.
        """
        key = f".tritonpipe-etag-{uuid.uuid4().hex}"
        self.put(key, b"1")
        try:
            found = self.head(key)
            with self._translated("replace", key):
                return (
                    found is not None
                    and not self._put_if_match(key, b"2", "0" * 32, "")
                    and self._put_if_match(key, b"2", found.etag, "")
                )
        finally:
            self.delete([key])

    @contextmanager
    def _translated(self, verb: str, key: str | None) -> Iterator[None]:
        if key is not None:
            require_key(key)
        where = self.url if key is None else f"{self.url}/{key}"
        try:
            yield
        except (exceptions.BaseError, FileNotFoundError) as error:
            if _is_of_this_machine(error):
                raise
            raise _translation(error, verb, where) from error


def _is_of_this_machine(error: Exception) -> bool:
    """Whether a local file is missing; obstore's error for an absent object has no number."""
    return isinstance(error, FileNotFoundError) and error.errno is not None


def _translation(error: Exception, verb: str, where: str) -> TritonpipeError:
    text = str(error)
    for mark, why, hint in _SETTINGS:
        if mark in text:
            return SettingsError(f"cannot {verb} {where}: {why}", hint=hint)
    if isinstance(error, FileNotFoundError):
        return SettingsError(f"cannot {verb} {where}: the bucket does not exist", hint=_CREATE)
    if isinstance(error, _DENIED):
        return SettingsError(f"cannot {verb} {where}: {_REFUSED}", hint=_CREDENTIALS)
    first_line = text.splitlines()[0]
    if isinstance(error, exceptions.InvalidPathError):
        return ConflictError(
            f"cannot {verb} {where}: {first_line}",
            hint="somebody else wrote an object with a key that Triton misreads, too: remove it",
        )
    causes = _CAUSE.findall(text)
    return UnavailableError(
        f"cannot {verb} {where}: {': '.join((first_line, *causes[-1:]))}",
        hint="check AWS_ENDPOINT_URL (unset, it means Amazon S3) and that the store is up "
        "(tritonpipe stack up for the local one), then run the command again",
    )


def _stored(meta: obstore.ObjectMeta) -> StoredObject:
    return StoredObject(
        key=meta["path"],
        size=meta["size"],
        etag=(meta["e_tag"] or "").strip('"'),
        # Some servers list more digits than they tell of a single object, and Triton sees none.
        last_modified=meta["last_modified"].replace(microsecond=0),
    )
