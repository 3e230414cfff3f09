"""A stack's addresses and credentials as lines that a shell can evaluate."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

CONFLICTING: Final = ("AWS_PROFILE", "AWS_SESSION_TOKEN")
"""With these from another account, a client would send the stack a signature that it refuses."""


def shell_lines(variables: Mapping[str, str]) -> tuple[str, ...]:
    """Lines for ``eval`` in any POSIX shell; values are quoted where they need it."""
    exports = (f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    return (f"unset {' '.join(CONFLICTING)}", *exports)
