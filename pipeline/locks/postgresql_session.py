"""Sessions of PostgreSQL that are seen to be dead, by either side, soon after they are.

By itself TCP may keep a session alive for hours when the machine or the network of the other side
is gone, and for ever when the other side lives and says nothing.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from pipeline.errors import DependencyError, SettingsError, UnavailableError
from pipeline.locks.holder import this_process

if TYPE_CHECKING:
    import psycopg

NAME_PREFIX: Final = "tritonpipe "
_NAME_BYTES: Final = 63
"""What the server keeps of a session's name."""

_ANSWER_SECONDS: Final = 10.0
"""How long the server may take for an answer; a lock that cannot be asked about is lost."""

_CLIENT_PROBES: Final = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": int(_ANSWER_SECONDS * 1000),
}
_SERVER_PROBES: Final = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "idle_session_timeout": "0",
}
_PREPARE: Final = """
    SELECT set_config(name, wish.value, false)
    FROM json_each_text(%(wishes)s) AS wish(name, value) JOIN pg_settings USING (name)
"""
"""Settings that an older server does not know are left out."""

_URL: Final = re.compile(r"postgres(ql)?://([^@/?#\[\]\s]*@)?[^@]*")
"""Whatever libpq would take for the host ends up in its errors, and may be half of a password."""

_REFUSALS: Final = re.compile(
    r"authentication failed|does not exist|no pg_hba\.conf entry|no password|permission denied"
)


def connect(url: str) -> psycopg.Connection[Any]:
    """A session of its own, whose name tells who we are, probed by both sides.

    No message carries the password.

    Raises:
        SettingsError: The URL is not one, or the server refuses the user.
        UnavailableError: The server does not answer.
        DependencyError: The client is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        raise DependencyError(
            f"locks in PostgreSQL need psycopg: {error}",
            hint="pip install 'tritonpipe[postgresql]'",
        ) from error
    if _URL.fullmatch(url) is None:
        raise _wrong_url()
    name = f"{NAME_PREFIX}{this_process()}".encode("ascii", "replace")[:_NAME_BYTES].decode()
    try:
        # A standby grants advisory locks of its own, which hold nobody off the primary.
        connection = psycopg.connect(
            url,
            autocommit=True,
            application_name=name,
            target_session_attrs="read-write",
            **_CLIENT_PROBES,  # type: ignore[arg-type]
        )
    except psycopg.ProgrammingError:
        raise _wrong_url() from None
    except psycopg.Error as error:
        text = first_line(error)
        kind = SettingsError if _REFUSALS.search(text) else UnavailableError
        raise kind(
            f"cannot open the database of TRITONPIPE_LOCK: {text}",
            hint="check that it is up, and the user, password, host, port and database in the URL",
        ) from error
    try:
        connection.execute(_PREPARE, {"wishes": json.dumps(_SERVER_PROBES)})
    except psycopg.Error as error:
        connection.close()
        raise UnavailableError(
            f"the database of TRITONPIPE_LOCK went away: {first_line(error)}",
            hint="run the command again when it is up",
        ) from error
    return connection


def answer(
    connection: psycopg.Connection[Any], query: str, parameters: Mapping[str, object]
) -> Any:
    """The first value of the answer, or None.

    Raises:
        psycopg.Error: The server refused, is gone, or did not answer in time; after the latter two
            the connection is of no more use.
    """
    watchdog = threading.Timer(_ANSWER_SECONDS, _hang_up, [connection])
    watchdog.daemon = True
    watchdog.start()
    try:
        row = connection.execute(query, parameters).fetchone()
    finally:
        watchdog.cancel()
    return None if row is None else row[0]


def _hang_up(connection: psycopg.Connection[Any]) -> None:
    import psycopg

    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as line,
    ):
        line.shutdown(socket.SHUT_RDWR)


def first_line(error: Exception) -> str:
    """What an error says, without the hints of libpq."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _wrong_url() -> SettingsError:
    return SettingsError(
        "TRITONPIPE_LOCK is not a URL that PostgreSQL's clients take",
        hint="write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with @ / : % in user and "
        "password as %40 %2F %3A %25",
    )
