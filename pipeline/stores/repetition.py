"""Repeats what obstore does not repeat itself.

obstore repeats requests that were refused or broken off, if that cannot do harm by HTTP's rules. It
gives up at once on an answer that breaks off while it is read, on ``POST`` (deleting several
objects is one), and on bytes that the server says did not arrive as they were sent. None of our
operations does harm when repeated; conditional writes are not done through here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from obstore import exceptions

from pipeline.errors import UnavailableError

_PAUSES: Final = (0.1, 0.5, 1.5)
_Result = TypeVar("_Result")


def repeated(work: Callable[[], _Result]) -> _Result:
    """The result of ``work``, which may be called several times."""
    for pause in _PAUSES:
        try:
            return work()
        except UnavailableError:
            pass
        except exceptions.GenericError as error:
            if _was_repeated(error):
                raise
        except FileNotFoundError as error:
            # An upload in parts was completed, but the answer was lost, so it was to be aborted.
            if "NoSuchUpload" not in str(error):
                raise
        time.sleep(pause)
    return work()


def has_no_ranges(error: exceptions.GenericError) -> bool:
    """Whether the server answered 200 to the request of a range, as rclone does, whatever it sent.

    obstore takes 206 only.
    """
    return "NotPartial" in str(error)


def _was_repeated(error: exceptions.GenericError) -> bool:
    """Whether obstore has been patient already, or it will be the same again."""
    text = str(error)
    return (
        has_no_ranges(error)
        or "Timeout" in text
        or ("RetryError" in text and "retries: 0" not in text)
    )
