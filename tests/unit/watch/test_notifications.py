"""Which notifications count."""

from __future__ import annotations

import time

import pytest

from pipeline.watch import notifications
from pipeline.watch.notifications import (
    DELIVERY,
    FRESH_SECONDS,
    SIGNATURE,
    TIMESTAMP,
    Notifications,
    signature_of,
)

BODY = b'{"entity":"model_version_alias"}'


def headers(
    delivery: str = "d1", at: float | None = None, secret: bytes = b"s", body: bytes = BODY
) -> dict[str, str]:
    timestamp = str(int(time.time() if at is None else at))
    return {
        DELIVERY: delivery,
        TIMESTAMP: timestamp,
        SIGNATURE: signature_of(secret, delivery, timestamp, body),
    }


def test_the_signature_is_mlflows() -> None:
    # Made once with MLflow's own code (mlflow.webhooks.delivery._generate_hmac_signature).
    expected = "v1,7kQY9x4M62NjPETr9iCvbGaGTqqIyZ9gfnZqVSXsXVs="
    assert signature_of(b"secret", "id", "1795175015", b"{}") == expected


def test_mlflows_own_counts() -> None:
    assert Notifications("s").problem(headers(), BODY) == ""


@pytest.mark.parametrize("part", [DELIVERY, TIMESTAMP, SIGNATURE])
def test_nothing_of_it_can_be_changed_or_be_missing(part: str) -> None:
    checks = Notifications("s")
    good = headers()
    assert "signature" in checks.problem(good | {part: good[part] + "0"}, BODY)
    assert "signature" in checks.problem({k: v for k, v in good.items() if k != part}, BODY)
    assert "signature" in checks.problem(good, BODY + b" ")
    assert "signature" in checks.problem(good | {SIGNATURE: "v1,é"}, BODY)


@pytest.mark.parametrize("off", [-FRESH_SECONDS - 2, FRESH_SECONDS + 2])
def test_a_late_one_does_not_count_and_one_from_the_future_neither(off: float) -> None:
    assert "old" in Notifications("s").problem(headers(at=time.time() + off), BODY)


def test_a_timestamp_that_is_no_number_does_not_count() -> None:
    signed = {
        DELIVERY: "d",
        TIMESTAMP: "now",
        SIGNATURE: signature_of(b"s", "d", "now", BODY),
    }
    assert "no number" in Notifications("s").problem(signed, BODY)


def test_each_delivery_is_new_once_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifications, "_MOST_REMEMBERED", 10)
    checks = Notifications("s")
    assert [checks.is_new(headers("a")), checks.is_new(headers("a"))] == [True, False]
    assert all(checks.is_new(headers(str(n))) for n in range(100))
    assert len(checks._seen) <= 11
