"""The commit: one conditional write that makes a version the one that is served.

Triton reloads a model only when its newest ``LastModified``, in whole seconds, has grown. A commit
in the same second as another write can be lost for ever, so it is repeated until the store itself
says that it is the newest object by at least a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from pipeline.errors import ConflictError, UnavailableError
from pipeline.flows.publish import WARMUP_MARKER, RepositoryState
from pipeline.locks import Held
from pipeline.model_config import CONFIG_NAME, served_versions
from pipeline.stores import Store, StoredObject

_COMMIT_ATTEMPTS: Final = 5
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


def commit(store: Store, state: RepositoryState, config: str, *, held: Held) -> None:
    """Write the config as the newest object of the model, in a second of its own.

    Args:
        store: The repository.
        state: What it held when this commit was decided.
        config: What shall be served.
        held: The lock of the model.

    Raises:
        ConflictError: The config is no longer the one of ``state``: somebody else has committed.
            Theirs is left alone.
        UnavailableError: The store's clock did not advance, or it did not keep what was written.
    """
    key, data = f"{state.model}/{CONFIG_NAME}", config.encode()
    before, standing = store.list_folder(state.model), store.head(key)
    before += [standing] if standing else []
    newest = max((_second(o) for o in before), default=_EPOCH)
    etag = state.config_etag
    # The condition says so, too, but not every store honours it.
    if etag != (standing.etag if standing else None):
        raise _overtaken(state.model)
    _leave_second(newest)
    for _ in range(_COMMIT_ATTEMPTS):
        held.require_held()
        is_written = (
            store.create(key, data) if etag is None else store.replace(key, data, etag=etag)
        )
        if not is_written:
            raise _overtaken(state.model)
        found = store.read(key)
        if found is not None and found.data == data and _second(found.stored) > newest:
            return
        if found is not None and _is_of_another(found.data, config):
            raise _overtaken(state.model)
        # The previous attempt is itself an object of this second, or was damaged on its way.
        etag = None if found is None else found.stored.etag
        time.sleep(1.0)
    raise UnavailableError(
        f"the store did not keep a newer {key} in {_COMMIT_ATTEMPTS} attempts",
        hint="check that nobody else writes to this model and that the store's clock runs",
    )


def _is_of_another(data: bytes, config: str) -> bool:
    """Whether this is another config that can be read; one of ours, damaged, names no version."""
    try:
        return data != config.encode() and bool(served_versions(data.decode()))
    except ValueError:
        return False


def withdraw_config(store: Store, model: str) -> None:
    """Take back the commit of a model that was never served before.

    Triton goes on serving what it has loaded until the last object of the model is gone, see
    :func:`withdraw_files`.
    """
    store.delete([f"{model}/{CONFIG_NAME}"])


def withdraw_files(store: Store, model: str, *, known: Iterable[str] = ()) -> None:
    """Remove everything of a model without a config; call when Triton is not loading it.

    Args:
        store: The repository.
        model: Its folder.
        known: Keys to remove even if they are not listed, see
            :func:`pipeline.flows.publish.known_keys`: one that is overlooked keeps the model alive.
    """
    listed = (o.key for o in store.list_folder(model))
    store.delete(sorted({*listed, *known, f"{model}/{WARMUP_MARKER}"}))


def _second(stored: StoredObject) -> datetime:
    return stored.last_modified.replace(microsecond=0)


def _leave_second(newest: datetime) -> None:
    """Wait until this machine's clock has left the second of the newest object.

    Saves one repetition where the clocks of machine and store agree; correctness does not depend
    on it, since the store's own answer is what counts.
    """
    remaining = newest.timestamp() + 1.0 - time.time()
    if 0 < remaining <= 1.0:
        time.sleep(remaining + 0.01)


def _overtaken(model: str) -> ConflictError:
    return ConflictError(
        f"somebody else has committed another version of {model} meanwhile",
        hint=f"look at: tritonpipe status {model}; then run the command again",
    )
