"""How a holder of a lock is named, for those who wait and for the journal."""

from __future__ import annotations

import getpass
import os
import socket


def this_user() -> str:
    """``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run as a number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def this_process() -> str:
    """``user@host, process 123``."""
    return f"{this_user()}, process {os.getpid()}"
