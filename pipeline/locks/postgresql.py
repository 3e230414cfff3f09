"""Locks for publishers anywhere: advisory locks of a PostgreSQL session.

For stores that ignore conditional writes, where MLflow has a PostgreSQL server anyway. The server
frees the lock when its session ends: at once when the holder is killed, and within half a minute
when the holder's machine or network is gone, since both sides probe the connection.

The lock is the session's, so connect to the server itself or through a pooler that keeps sessions
(not PgBouncer in transaction mode, which :meth:`pipeline.locks.Held.require_held` would notice).
A password need not be in the URL: libpq reads ``PGPASSWORD`` and ``~/.pgpass``, too.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import ConflictError, UnavailableError
from pipeline.locks import WAIT_HINT, Held, still_held_by
from pipeline.locks.postgresql_session import NAME_PREFIX, answer, connect, first_line

if TYPE_CHECKING:
    import psycopg

_RETRY_SECONDS: Final = 0.25

_LOCKS: Final = """
    FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1
      AND classid = %(high)s::bigint::oid AND objid = %(low)s::bigint::oid
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_IS_OURS: Final = f"SELECT EXISTS (SELECT {_LOCKS} AND pid = pg_backend_pid())"
_HOLDER: Final = f"""
    SELECT application_name FROM pg_stat_activity WHERE pid IN (SELECT pid {_LOCKS})
"""  # noqa: S608


class PostgresqlLocks:
    """A :class:`pipeline.locks.Locks` with one session per lock that is held.

    Args:
        url: As libpq takes it, ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``.
        repository: URL of the repository: several may share one database.
    """

    def __init__(self, url: str, *, repository: str) -> None:
        self._url = url
        self._repository = repository

    @contextmanager
    def hold(self, model: str, *, seconds: float, tell: Callable[[str], None]) -> Iterator[Held]:
        """Hold the lock of a model while the body runs."""
        with closing(connect(self._url)) as connection:
            import psycopg  # connect() has said what to install

            session = _Session(connection, lock_key(self._repository, model), model)
            try:
                session.wait(seconds, tell)
            except psycopg.Error as error:
                raise UnavailableError(
                    f"the database went away while waiting for the lock of {model}: "
                    + first_line(error),
                    hint="run the command again when the database of TRITONPIPE_LOCK is up",
                ) from error
            try:
                yield session
            finally:
                # Closed, it is freed as well, but only when the server has noticed.
                with suppress(psycopg.Error):
                    session.release()


def lock_key(repository: str, model: str) -> int:
    """The signed 64-bit number of a model's lock; the same in every process and version."""
    text = f"{repository.rstrip('/')}\0{model}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


class _Session:
    """One connection, and the lock that it holds or wants."""

    def __init__(self, connection: psycopg.Connection[Any], key: int, model: str) -> None:
        self._connection = connection
        self._model = model
        self._key = {"key": key, "high": (key >> 32) & 0xFFFFFFFF, "low": key & 0xFFFFFFFF}

    def wait(self, seconds: float, tell: Callable[[str], None]) -> None:
        """Take the lock.

        Polls, since a statement that waits in the server hears no Ctrl-C.
        """
        deadline = time.monotonic() + seconds
        is_told = False
        while not self._ask("SELECT pg_try_advisory_lock(%(key)s)"):
            if time.monotonic() >= deadline or not is_told:
                holder = str(self._ask(_HOLDER) or "").removeprefix(NAME_PREFIX)
            if time.monotonic() >= deadline:
                raise ConflictError(still_held_by(self._model, holder, seconds), hint=WAIT_HINT)
            if not is_told:
                is_told = True
                tell(f"waiting for {holder or 'another publisher'}")
            time.sleep(_RETRY_SECONDS)

    def require_held(self) -> None:
        """Return if the server says, now, that this session holds the lock."""
        import psycopg

        why = "the database says that this session does not hold it"
        try:
            if self._ask(_IS_OURS):
                return
        except psycopg.Error as error:
            why = first_line(error)
        raise ConflictError(
            f"the lock of {self._model} was lost: {why}",
            hint="run the command again; it begins with what the store holds then",
        )

    def release(self) -> None:
        """Give the lock back."""
        self._ask("SELECT pg_advisory_unlock(%(key)s)")

    def _ask(self, query: str) -> Any:
        return answer(self._connection, query, self._key)
