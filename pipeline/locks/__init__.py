"""One publisher per model at a time.

A commit is one conditional write, so that two publishers can never both succeed where the store
honours conditions. A lock is there for the rest: the second publisher waits instead of doing work
in vain, garbage is not collected from below a publication, and a store that ignores conditions
(``rclone serve s3`` does, in silence) has one writer at a time all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol


class Held(Protocol):
    """A lock that was taken, and may have been lost since."""

    def require_held(self) -> None:
        """Return if the lock is held at this moment; ask right before a write that matters.

        Raises:
            ConflictError: It was lost, because this process stood still or the lock's server was
                away: another publisher may be at work. Nothing more must be written.
        """


class Locks(Protocol):
    """The locks of all models of one repository."""

    def hold(
        self, model: str, *, seconds: float, tell: Callable[[str], None]
    ) -> AbstractContextManager[Held]:
        """Hold the lock of a model while the body runs.

        Freed when the holder is killed: at once, or after a few seconds without a sign of life.

        Args:
            model: Name of the Triton model.
            seconds: How long to wait for another holder; 0 to try once.
            tell: Told in words for whom we wait.

        Raises:
            ConflictError: Another publisher still holds it after that time; says who.
            SettingsError: There is no lock that would hold, with these settings and this store.
            UnavailableError: Where the lock is kept does not answer.
        """


def still_held_by(model: str, holder: str, seconds: float) -> str:
    """The message of the error after waiting in vain."""
    who = holder or "another publisher"
    return f"{model} is being published by {who}, still after {seconds:.0f} s"


WAIT_HINT = "run the command again later; TRITONPIPE_LOCK_SECONDS sets how long to wait"
