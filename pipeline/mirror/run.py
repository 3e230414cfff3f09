"""Runs a mirror: once, or until it is told to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.errors import RefusedError, UnavailableError
from pipeline.mirror.advance import Advance, Rules
from pipeline.mirror.follow import Follower, Tell
from pipeline.mirror.local import LocalRepository
from pipeline.mirror.remote import Remote
from pipeline.mirror.seal import KeySeal
from pipeline.mirror.status import MirrorStatus
from pipeline.stores import Store

_MODELS_AT_ONCE: Final = 4
_DOWNLOADS_AT_ONCE: Final = 16
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorOptions:
    """What a mirror is told.

    Attributes:
        directory: Where it works; see :mod:`pipeline.mirror`.
        public_key: Whose signatures are required; None for no signatures.
        read_digests: Read every local byte at the start.
        rules: How careful it is.
    """

    directory: Path
    public_key: Path | None = None
    read_digests: bool = False
    rules: Rules = field(default_factory=Rules)


@contextmanager
def open_mirror(
    store: Store,
    options: MirrorOptions,
    tell: Tell,
    changed: Callable[[], None] = lambda: None,
) -> Iterator[Follower]:
    """Take the folder, verify what is in it, and give what follows the store.

    Raises:
        SettingsError: The folder or the key cannot be used.
        ConflictError: Another mirror works in the folder.
    """
    seal = KeySeal(options.public_key) if options.public_key else None
    local = LocalRepository(options.directory)
    remote = Remote(store)
    local.open(store.url)
    jobs = ThreadPoolExecutor(_MODELS_AT_ONCE, thread_name_prefix="model")
    downloads = ThreadPoolExecutor(_DOWNLOADS_AT_ONCE, thread_name_prefix="download")
    try:
        advance = Advance(remote, local, options.rules, downloads=downloads, seal=seal)
        follower = Follower(
            remote, local, advance, options.rules, jobs=jobs, tell=tell, changed=changed
        )
        follower.start(read_digests=options.read_digests)
        yield follower
    finally:
        jobs.shutdown(cancel_futures=True)
        downloads.shutdown(cancel_futures=True)
        local.close()


def follow(follower: Follower, *, interval: float, stop: threading.Event) -> None:
    """Look every ``interval`` seconds until ``stop`` is set, whatever happens in a look."""
    while not stop.is_set():
        try:
            follower.look()
        except Exception:
            _logger.exception("a look at the store failed")
        stop.wait(interval)


def require_current(status: MirrorStatus) -> None:
    """Return if the local repository is what the store says.

    Raises:
        UnavailableError: The store could not be read, or there is no space.
        RefusedError: Something in the store cannot be verified.
    """
    if status.problem:
        raise UnavailableError(
            f"{status.problem}; what is served stays",
            hint="check AWS_ENDPOINT_URL, the AWS_* keys and the prefix of the repository",
        )
    troubled = [model for model in status.models if model.reason]
    if not troubled:
        return
    text = "; ".join(model.problem for model in troubled)
    if all(model.reason == "refused" for model in troubled):
        raise RefusedError(text, hint="look at: tritonpipe fsck; what is served stays as it is")
    raise UnavailableError(text, hint="what is served stays as it is; run it again")
