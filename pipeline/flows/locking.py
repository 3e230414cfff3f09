"""The lock of a model, taken as a stage that tells whom it waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from pipeline.errors import ConflictError
from pipeline.flows.progress import Progress
from pipeline.locks import Held, Locks

ENSEMBLES: Final = ".ensembles"
"""Held, beside those of the models, while an ensemble is replaced, so that one is at a time.

Triton's core can crash when several ensembles reload in one poll: the end of one looks for its
record by an address that the record of the next may have by then, and frees that (``ModelDeleter``
in its ``model_lifecycle.cc``; seen on 2.51, and unchanged in 2026).
"""

_AN_ENSEMBLE: Final = "an ensemble"


@contextmanager
def held_lock(locks: Locks, model: str, *, seconds: float, progress: Progress) -> Iterator[Held]:
    """Hold the lock of a model while the body runs; waiting for it is a stage of its own.

    Raises:
        ConflictError: Another publisher holds it for longer than ``seconds``.
        SettingsError: No lock would hold with these settings and this store.
    """
    with ExitStack() as stack:
        with progress("lock") as describe:

            def tell(text: str) -> None:
                describe(text.replace(ENSEMBLES, _AN_ENSEMBLE))

            try:
                held = stack.enter_context(locks.hold(model, seconds=seconds, tell=tell))
            except ConflictError as error:
                message = error.message.replace(ENSEMBLES, _AN_ENSEMBLE)
                raise ConflictError(message, hint=error.hint) from error
            tell(f"nobody else works on {model}")
        yield held


@contextmanager
def held_locks(
    locks: Locks, models: Iterable[str], *, seconds: float, progress: Progress
) -> Iterator[dict[str, Held]]:
    """Hold the locks of several models, always taken in the same order.

    Raises:
        ConflictError: Another publisher holds one of them for longer than ``seconds``.
        SettingsError: No lock would hold with these settings and this store.
    """
    with ExitStack() as stack:
        yield {
            model: stack.enter_context(held_lock(locks, model, seconds=seconds, progress=progress))
            for model in sorted(set(models))
        }
