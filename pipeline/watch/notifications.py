"""Whether a notification is MLflow's own, fresh and new.

Nothing is ever done *because of* a notification but to look: what it says is not read. So a forged
one could only make the loop look more often, and even that it must not.

The form is that of MLflow's webhooks: ``v1,`` and the base64 of an HMAC-SHA256 over
``DELIVERY-ID.TIMESTAMP.BODY`` (``mlflow/webhooks/delivery.py``; https://mlflow.org/docs/latest/ml/webhooks/).
"""

from __future__ import annotations

import hashlib
import hmac
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

SIGNATURE: Final = "x-mlflow-signature"
DELIVERY: Final = "x-mlflow-delivery-id"
TIMESTAMP: Final = "x-mlflow-timestamp"

MOST_BYTES: Final = 64 * 1024
"""Of a body; MLflow's own have some hundreds."""

FRESH_SECONDS: Final = 300.0
"""How far the clocks of MLflow and ours may be apart, and how long a delivery is remembered."""

_MOST_REMEMBERED: Final = 10_000


class Notifications:
    """Tells the notifications that count from all others.

    Args:
        secret: Shared with MLflow.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()
        self._seen: OrderedDict[str, float] = OrderedDict()

    def problem(self, headers: Mapping[str, str], body: bytes) -> str:
        """Why this one does not count; empty if it does. Headers have names in lower case."""
        delivery, timestamp = headers.get(DELIVERY, ""), headers.get(TIMESTAMP, "")
        expected = signature_of(self._secret, delivery, timestamp, body)
        # Bytes, since strings beyond ASCII cannot be compared in constant time.
        if not hmac.compare_digest(expected.encode(), headers.get(SIGNATURE, "").encode()):
            return "the signature is not that of the shared secret"
        try:
            age = abs(time.time() - int(timestamp))
        except ValueError:
            return "the timestamp is no number"
        if age > FRESH_SECONDS:
            return f"it is {age:.0f} s old, or a clock is wrong"
        return ""

    def is_new(self, headers: Mapping[str, str]) -> bool:
        """Whether its delivery was not seen before; to be asked once of each that counts."""
        delivery, now = headers.get(DELIVERY, ""), time.monotonic()
        while self._seen and (
            next(iter(self._seen.values())) < now - 2 * FRESH_SECONDS
            or len(self._seen) > _MOST_REMEMBERED
        ):
            self._seen.popitem(last=False)
        if delivery in self._seen:
            return False
        self._seen[delivery] = now
        return True


def signature_of(secret: bytes, delivery: str, timestamp: str, body: bytes) -> str:
    """The signature that MLflow sends with a notification."""
    message = f"{delivery}.{timestamp}.".encode() + body
    return "v1," + b64encode(hmac.new(secret, message, hashlib.sha256).digest()).decode()
