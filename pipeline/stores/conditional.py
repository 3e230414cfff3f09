"""Conditional writes whose answer was lost, answered truthfully.

A client that repeats a put-if-absent after a reset is refused by its own first attempt, and one
that does not repeat it cannot say whether it succeeded. So obstore's own repetitions are off for
these writes (``client`` has none), each attempt is known to be the first or not, and a refusal
after an attempt of ours that may have landed is decided by reading the object back.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import obstore
from obstore import exceptions
from obstore.store import MemoryStore, S3Store

if TYPE_CHECKING:
    from obstore import PutMode

_PAUSES: Final = (0.1, 0.4, 1.0, 2.0)
"""In seconds, between attempts: about a minute with the client's time limit in the worst case."""

_REFUSED: Final = (exceptions.PreconditionError, exceptions.AlreadyExistsError)
_CERTAIN: Final = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)
_CONFLICT: Final = "409 Conflict"


def put_if(client: S3Store | MemoryStore, key: str, data: bytes, mode: PutMode) -> bool:
    """Write one object if the condition ``mode`` holds; False if it does not.

    Who won can be told only if competing writers write different bytes.

    Raises:
        obstore.exceptions.BaseError: No answer, and what is there now is not ``data``: an attempt
            may still be on its way.
        FileNotFoundError: There is no such bucket.
    """
    may_have_landed = False
    for pause in (*_PAUSES, None):
        try:
            obstore.put(client, key, data, mode=mode, use_multipart=False)
        except _REFUSED as error:
            if _CONFLICT not in str(error) or pause is None:
                return may_have_landed and _holds(client, key, data)
            # Two writes at the same moment: the server decided nothing and asks to repeat.
        except _CERTAIN:
            raise
        except exceptions.BaseError:
            may_have_landed = True
            if pause is None:
                if _holds(client, key, data):
                    return True
                raise
        else:
            return True
        if pause is not None:
            time.sleep(pause)
    return False


def _holds(client: S3Store | MemoryStore, key: str, data: bytes) -> bool:
    try:
        return bytes(obstore.get(client, key).bytes()) == data
    except FileNotFoundError:
        return False
