"""What a watcher answers over HTTP; on a real socket it is tested with the servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest

from pipeline.watch.bell import Bell
from pipeline.watch.difference import REFUSED, Difference, Standing
from pipeline.watch.endpoint import application
from pipeline.watch.pulse import Pulse

ODD = "it says \udcff, \x00 and \u2028"
"""Words of a model that UTF-8, a line or a terminal cannot hold."""


@pytest.fixture
def pulse() -> Pulse:
    pulse = Pulse(interval=1.0, is_leading=True)
    standing = Standing(model="m", wish=None, published=None, state=REFUSED, reason=ODD)
    pulse.went_well(Difference(promote=(), retire={}, cancel={}, standings=(standing,)))
    return pulse


def get(pulse: Pulse, path: str) -> tuple[int, bytes]:
    """Status and body of an answer."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
    asyncio.run(application(pulse, Bell(), None)(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_the_standings_are_told_whatever_the_words_of_a_model_hold(pulse: Pulse) -> None:
    status, body = get(pulse, "/status")
    (told,) = json.loads(body)["models"]
    assert (status, told["state"], told["reason"]) == (200, REFUSED, ODD)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_model_that_is_refused_makes_no_watcher_unwell(pulse: Pulse, path: str) -> None:
    assert get(pulse, path)[0] == 200


def test_it_is_not_ready_after_a_round_that_failed_whatever_the_reason_says(pulse: Pulse) -> None:
    pulse.failed(ODD)
    status, body = get(pulse, "/readyz")
    assert (status, body.startswith(b"it says \\udcff")) == (503, True)
    assert json.loads(get(pulse, "/status")[1])["failure"] == ODD
