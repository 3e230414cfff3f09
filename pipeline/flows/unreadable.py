"""Keeps our environment to ourselves while other people's code runs.

Any process of a user can read ``/proc/PID/environ`` of the others, and with it the credentials of
this one. A user namespace ends that; where there is none, this does, but not for root without
dropped capabilities.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.flows.namespaces import is_dumpable, set_dumpable

_lock = threading.Lock()
_state = {"users": 0, "before": 1}


@contextmanager
def unreadable() -> Iterator[None]:
    """No other process of this user can look into this one meanwhile; counted, across threads."""
    with _lock:
        if _state["users"] == 0:
            _state["before"] = int(is_dumpable())
            set_dumpable(False)
        _state["users"] += 1
    try:
        yield
    finally:
        with _lock:
            _state["users"] -= 1
            if _state["users"] == 0 and _state["before"]:
                set_dumpable(True)
