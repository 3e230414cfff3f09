"""Takes away a model that must not be served."""

from __future__ import annotations

import time
from typing import Final

from pipeline.errors import UnavailableError
from pipeline.flows.commit import withdraw_config, withdraw_files
from pipeline.flows.confirm import is_loading
from pipeline.flows.publish import known_keys, read_state
from pipeline.flows.servers import Servers
from pipeline.locks import Held

_WITHDRAW_SECONDS: Final = 30.0


def withdraw(servers: Servers, model: str, held: Held) -> None:
    """Take away a model, its config first.

    Without a config Triton does not begin to load it, but goes on serving what it has loaded until
    the last object is gone. Objects that vanish during a load can hang Triton's poll. A server
    that does not tell what it loads is told by a mirror, and loads from a copy.

    Raises:
        ConflictError: The lock was lost.
        UnavailableError: The store does not answer, or the server keeps loading the model.
    """
    known = known_keys(servers.repository, read_state(servers.repository, model))
    held.require_held()
    withdraw_config(servers.repository, model)
    deadline = time.monotonic() + _WITHDRAW_SECONDS
    while any(is_loading(replica, model) for replica in servers.replicas):
        if time.monotonic() > deadline:
            raise UnavailableError(f"Triton has been loading {model} for {_WITHDRAW_SECONDS:.0f} s")
        time.sleep(0.1)
    held.require_held()
    withdraw_files(servers.repository, model, known=known)
