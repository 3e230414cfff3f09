"""What wakes the loop, and what does not."""

from __future__ import annotations

import hashlib
import http.client
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.watch.notifications import DELIVERY, SIGNATURE, TIMESTAMP, signature_of

pytestmark = pytest.mark.integration


def test_mlflows_own_wakes_the_loop(
    watching: Callable[..., Any],
    tritonpipe: Callable[..., Any],
    until: Callable[..., None],
    tmp_path: Path,
    scene: Any,
) -> None:
    secret, watcher = listening(watching, tmp_path, scene.name)
    url = f"http://{watcher.address()}/webhook"
    watcher.wait_for(kind="leading")
    install = ("webhook", "install", url, "--secret-file", secret)
    assert tritonpipe(*install).code == 0
    assert not tritonpipe(*install, "--json").data["is_new"]

    def wish() -> bool:
        # MLflow remembers for a moment that nobody wants to be told of an alias.
        scene.wish(1)
        return bool(watcher.told(kind="started"))

    try:
        until(wish, watcher.events)
        watcher.wait_for(kind="ended", outcome="promoted")
    finally:
        assert tritonpipe("webhook", "remove", url).code == 0
    assert tritonpipe("webhook", "list", "--json").data == []


def test_those_that_are_forged_late_doubled_or_too_long_do_not(
    watching: Callable[..., Any], until: Callable[..., None], tmp_path: Path, name: str
) -> None:
    _secret, watcher = listening(watching, tmp_path, name)
    address = watcher.address()
    until(lambda: rounds(address) == 1)
    now = int(time.time())
    assert notify(address, "right", now) == 204
    until(lambda: rounds(address) == 2)
    assert notify(address, "right", now) == 204  # again: taken, and nothing done
    assert notify(address, "late", now - 4000) == 401
    assert notify(address, "forged", now, secret="guessed") == 401
    assert notify(address, "long", now, body=b"x" * 70_000) == 413
    assert ask(address, "GET", "/webhook")[0] == 405
    time.sleep(1.0)
    assert rounds(address) == 2
    assert ask(address, "GET", "/healthz")[0] == 200
    assert ask(address, "GET", "/readyz")[0] == 200


def listening(watching: Callable[..., Any], folder: Path, name: str) -> tuple[Path, Any]:
    """A secret, and a watcher that looks by itself only once."""
    secret = folder / "secret"
    secret.write_text("between us\n")
    return secret, watching(
        *("--model", name, "--interval", "300"),
        *("--listen", "127.0.0.1:0", "--webhook-secret-file", str(secret)),
    )


def notify(
    address: str, delivery: str, at: int, *, secret: str = "between us", body: bytes = b"{}"
) -> int:
    headers = {
        DELIVERY: hashlib.sha256(delivery.encode()).hexdigest(),
        TIMESTAMP: str(at),
        "Content-Type": "application/json",
    }
    signed = signature_of(secret.encode(), headers[DELIVERY], headers[TIMESTAMP], body)
    return ask(address, "POST", "/webhook", body, headers | {SIGNATURE: signed})[0]


def ask(
    address: str, method: str, path: str, body: bytes = b"", headers: Any = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def rounds(address: str) -> int:
    text = ask(address, "GET", "/metrics")[1]
    line = next(x for x in text.splitlines() if x.startswith("tritonpipe_watch_rounds_total"))
    return int(float(line.split()[1]))
