"""Which kind of lock, from one setting."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeline.errors import SettingsError
from pipeline.locks import Locks
from pipeline.locks.files import FileLocks
from pipeline.locks.leases import LeaseLocks
from pipeline.serialization import from_json, to_json
from pipeline.stores import Conditions, Store

_SEEN_KEY: Final = ".conditions/seen.json"


def open_locks(setting: str, *, repository: str, records: Store) -> Locks:
    """The locks of a repository.

    Args:
        setting: A folder, a ``postgresql://`` URL, or empty for leases in the store.
        repository: URL of the repository.
        records: Where its records are.

    Raises:
        SettingsError: It is none of these.
    """
    if setting.startswith(("postgresql://", "postgres://")):
        from pipeline.locks.postgresql import PostgresqlLocks

        return PostgresqlLocks(setting, repository=repository)
    folder = setting.removeprefix("file://")
    if folder.startswith(("/", "~")):
        return FileLocks(_home_expanded(folder), repository=repository)
    if setting:
        raise SettingsError(
            # It may hold a password, as in the addresses that MLflow takes (postgresql+psycopg2://).
            "TRITONPIPE_LOCK is neither an absolute path nor begins with postgresql://",
            hint="correct it, or unset it for leases in the store",
        )
    return LeaseLocks(records, can_rely_on=lambda: known_conditions(records).suffice)


def _home_expanded(folder: str) -> Path:
    try:
        return Path(folder).expanduser()
    except RuntimeError as error:
        raise SettingsError(
            f"TRITONPIPE_LOCK is {folder}, and there is no such home directory",
            hint="write the absolute path of the folder",
        ) from error


def known_conditions(store: Store) -> Conditions:
    """What the server of a store honours; it is probed once and then remembered in the store.

    Raises:
        SettingsError: The store refuses the credentials.
        UnavailableError: The store does not answer.
    """
    from pipeline.stores.probe import probe_conditions

    # A bucket that was copied to another server must not vouch for it.
    server = os.environ.get("AWS_ENDPOINT_URL", "") + " " + store.url
    remembered = store.get(_SEEN_KEY)
    with suppress(ValueError, TypeError, LookupError):  # absent or damaged: found out anew
        document = json.loads(remembered or b"")
        if document["server"] == server:
            seen: Conditions = from_json(Conditions, document["conditions"])
            return seen
    conditions = probe_conditions(store)
    document = {"server": server, "conditions": to_json(conditions)}
    store.put(_SEEN_KEY, json.dumps(document, indent=1).encode())
    return conditions
