"""The lock of a model, taken as a stage that tells whom it waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from pipeline.flows.progress import Progress
from pipeline.locks import Held, Locks


@contextmanager
def held_lock(locks: Locks, model: str, *, seconds: float, progress: Progress) -> Iterator[Held]:
    """Hold the lock of a model while the body runs; waiting for it is a stage of its own.

    Raises:
        ConflictError: Another publisher holds it for longer than ``seconds``.
        SettingsError: No lock would hold with these settings and this store.
    """
    with ExitStack() as stack:
        with progress("lock") as describe:
            held = stack.enter_context(locks.hold(model, seconds=seconds, tell=describe))
            describe(f"nobody else works on {model}")
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
