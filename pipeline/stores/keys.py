"""Which keys an object may have here.

S3 takes almost any string, but clients and file systems do not: some drop slashes at the ends,
some resolve ``..``, some refuse control characters. What is allowed here comes back from every kind
of store exactly as it was given.
"""

from __future__ import annotations

import unicodedata
from typing import Final

from pipeline.errors import RequestError

_LONGEST: Final = 1024
_DOTS: Final = frozenset({"", ".", ".."})


def require_key(key: str) -> None:
    """Return if ``key`` can name an object in every kind of store.

    Raises:
        RequestError: It is empty or longer than 1,024 bytes, begins or ends with a slash, has an
            empty segment, ``.`` or ``..``, or a control character.
    """
    if not _is_key(key):
        raise RequestError(
            f"{key!r} cannot be the key of an object",
            hint="use segments of printable characters between single slashes, neither . nor ..",
        )


def _is_key(key: str) -> bool:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:  # half of a character: not UTF-8, and no XML either
        return False
    return (
        size <= _LONGEST
        and not any(segment in _DOTS for segment in key.split("/"))
        and not any(unicodedata.category(character) == "Cc" for character in key)
    )
