"""Locks for publishers anywhere: a lease in the store, where the store honours conditions.

The lease is one object that its holder rewrites every few seconds by put-if-match. Whoever waits
watches the object's ETag, and takes the lease over by put-if-match once it has not changed for
:data:`LEASE_SECONDS` of the *waiter's* clock, counted from the end of the first look that found it.
No wall clock is compared, so clocks that differ or jump do no harm.

A holder that stood still (a suspended machine) can wake up after its lease was taken over. Hence
:meth:`pipeline.locks.Held.require_held` before every write that matters, and the commit itself is
conditional: the store refuses the second one whatever the clocks say.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from pipeline.errors import ConflictError, SettingsError, TritonpipeError, UnavailableError
from pipeline.locks import WAIT_HINT, Held, still_held_by
from pipeline.locks.holder import this_process
from pipeline.stores import Store

LEASE_SECONDS: Final = 15.0
"""A killed publisher holds up the next one for this long."""

_RENEWALS: Final = 5
"""Within one lease: a store that is away for a moment does not end it."""

_LOOKS: Final = 30
"""How often a waiter looks within one lease."""


class LeaseLocks:
    """A :class:`pipeline.locks.Locks` with one object per model.

    Args:
        store: Where the records of the repository are.
        can_rely_on: Whether the store honours conditions; asked when a lock is wanted, since only
            then the store is probed.
        lease_seconds: How long a lease lives without a renewal.
    """

    def __init__(
        self,
        store: Store,
        *,
        can_rely_on: Callable[[], bool],
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self._store = store
        self._can_rely_on = can_rely_on
        self._lease_seconds = lease_seconds

    @contextmanager
    def hold(self, model: str, *, seconds: float, tell: Callable[[str], None]) -> Iterator[Held]:
        """Hold the lock of a model while the body runs."""
        if not self._can_rely_on():
            raise SettingsError(
                f"{self._store.url} ignores conditional writes, so that two publishers could mix "
                "their releases, and there is no other lock",
                hint="set TRITONPIPE_LOCK to a folder, if all publishers run on this machine, or "
                "to the postgresql:// URL of a database that all of them reach",
            )
        lease = _Lease(self._store, f"{model}/lock.json", self._lease_seconds)
        self._acquire(lease, model, seconds, tell)
        renewal = threading.Thread(target=lease.keep_renewing, name=f"lease-{model}", daemon=True)
        renewal.start()
        try:
            yield lease
        finally:
            lease.stop.set()
            renewal.join()
            # Not released, it ends by itself; what happened in the body matters more.
            with suppress(TritonpipeError):
                lease.release()

    def _acquire(
        self, lease: _Lease, model: str, seconds: float, tell: Callable[[str], None]
    ) -> None:
        started = unchanged_since = _now()
        seen = ""
        while True:
            found = lease.look()
            now = _now()
            if found is None or not found.holder:
                if lease.take(found):
                    return
                continue
            if found.etag != seen:
                if not seen:
                    tell(f"waiting for {found.holder}")
                unchanged_since, seen = now, found.etag
            elif now - unchanged_since > self._lease_seconds and lease.take(found):
                return
            # One that gave no sign of life must be watched for a lease, whatever the patience.
            if now - started >= seconds and now - unchanged_since < self._lease_seconds:
                raise ConflictError(still_held_by(model, found.holder, seconds), hint=WAIT_HINT)
            time.sleep(self._lease_seconds / _LOOKS)


class _Found:
    def __init__(self, holder: str, etag: str) -> None:
        self.holder = holder
        self.etag = etag


class _Lease:
    """One object; of the process that took it."""

    def __init__(self, store: Store, key: str, lease_seconds: float) -> None:
        self._store = store
        self._key = key
        self._lease_seconds = lease_seconds
        self._token = secrets.token_hex(16)
        self._etag = ""
        self._valid_until = 0.0
        self.stop = threading.Event()

    def look(self) -> _Found | None:
        """Who holds it; None if nobody ever did."""
        found = self._store.read(self._key)
        if found is None:
            return None
        try:
            holder = str(json.loads(found.data)["holder"])
        except (ValueError, KeyError, TypeError):
            holder = "somebody whose name cannot be read"
        return _Found(holder, found.stored.etag)

    def take(self, found: _Found | None) -> bool:
        """Write our name, unless somebody else was quicker."""
        return self._write(this_process(), found.etag if found else None)

    def keep_renewing(self) -> None:
        """Show signs of life until told to stop, or the lease is somebody else's."""
        while not self.stop.wait(self._lease_seconds / _RENEWALS):
            try:
                if not self._write(this_process(), self._etag):
                    self._valid_until = 0.0
                    return
            except UnavailableError:
                continue  # the next one may come through; until then it grows old
            except TritonpipeError:
                return

    def release(self) -> None:
        """Write that nobody holds it, if it still is ours."""
        self._write("", self._etag)

    def require_held(self) -> None:
        """Return if the lease is surely still ours."""
        if _now() >= self._valid_until:
            raise ConflictError(
                f"the lease on {self._key} was lost: for {self._lease_seconds:.0f} s it could not "
                "be renewed",
                hint="run the command again; it begins with what the store holds then",
            )

    def _write(self, holder: str, etag: str | None) -> bool:
        started = _now()
        # A random part, since equal bytes have equal ETags and would not look like life.
        life = secrets.token_hex(8)
        data = json.dumps({"holder": holder, "lease": self._token, "life": life}).encode()
        if etag is None:
            self._store.create(self._key, data)
        else:
            self._store.replace(self._key, data, etag=etag)
        # A write whose answer was lost may have come through: what is there now decides.
        written = self._store.read(self._key)
        if written is None or self._token.encode() not in written.data:
            return False
        self._etag = written.stored.etag
        # An earlier write of ours was a sign of life back then, not now.
        if life.encode() in written.data:
            # From before the write, and shorter than what others wait.
            self._valid_until = started + self._lease_seconds * 0.8
        return True


def _now() -> float:
    """Seconds of a clock that never jumps and, unlike the monotonic one, runs during a suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
