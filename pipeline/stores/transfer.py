"""Many files into a store, as fast as it takes them.

Small files are bound by the time of an answer, so that many are sent at once; large ones by the
line, and are sent one after another, each in several parts at once. Either way less than 100 MiB
are in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol, TypeAlias, runtime_checkable

from pipeline.stores import Store

Transferred: TypeAlias = Callable[[int, int], None]
"""Called with the bytes sent so far and the bytes in all; never by two threads at once."""

_LANES: Final = ((16 << 20, 1), (1 << 20, 4), (0, 32))
"""Files of at least so many bytes, and how many of them at once."""


@runtime_checkable
class TellsOfParts(Protocol):
    """A store that sends large files in parts and can tell of each."""

    def put_file(self, key: str, path: Path, sent: Callable[[int], None]) -> None:
        """As ``put``, telling the bytes of each part."""


def _nobody(_done: int, _total: int) -> None:
    pass


def put_files(
    store: Store,
    files: Mapping[str, Path],
    *,
    transferred: Transferred = _nobody,
    before_each: Callable[[], None] = lambda: None,
) -> None:
    """Write files under their keys, replacing any, the largest first.

    After an error or Ctrl-C those not begun are not sent; each object is there or is not.

    Args:
        store: Where to.
        files: By key.
        transferred: Told how far it is.
        before_each: Called before each file is begun, by one thread at a time; its error is ours.

    Raises:
        SettingsError: The store refuses the credentials.
        UnavailableError: The store does not answer.
    """
    sizes = {key: path.stat().st_size for key, path in files.items()}
    tell = _Sum(sum(sizes.values()), transferred)
    asking = threading.Lock()

    def send(key: str) -> None:
        with asking:
            before_each()
        if isinstance(store, TellsOfParts):
            store.put_file(key, files[key], tell)
        else:
            store.put(key, files[key])
            tell(sizes[key])

    waiting = sorted(files, key=lambda key: (-sizes[key], key))
    for smallest, at_once in _LANES:
        lane = [key for key in waiting if sizes[key] >= smallest]
        waiting = waiting[len(lane) :]
        pool = ThreadPoolExecutor(min(at_once, len(lane)) or 1)
        try:
            list(pool.map(send, lane))
        finally:
            pool.shutdown(cancel_futures=True)


class _Sum:
    def __init__(self, total: int, transferred: Transferred) -> None:
        self._done, self._total = 0, total
        self._transferred = transferred
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._transferred(self._done, self._total)
