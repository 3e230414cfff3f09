"""What a watcher answers over HTTP: notifications, health, metrics, and how things stand.

A thread of its own, so that probes are answered while a round waits for a server.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pipeline.errors import SettingsError
from pipeline.serialization import to_json
from pipeline.watch.bell import Bell
from pipeline.watch.metrics import rendered
from pipeline.watch.notifications import MOST_BYTES, Notifications
from pipeline.watch.pulse import Pulse

_log = logging.getLogger(__name__)

WEBHOOK_PATH: Final = "/webhook"

_SWITCH_SECONDS: Final = 0.001
"""How long a round may compute before this thread gets its turn. With Python's default, five times
as long, one notification in ten took over 50 ms in the midst of a round."""


def application(pulse: Pulse, bell: Bell, notifications: Notifications | None) -> Starlette:
    """The routes; without a shared secret there is none for notifications."""

    async def webhook(request: Request) -> Response:
        body = await _bounded_body(request)
        if body is None:
            return PlainTextResponse(f"more than {MOST_BYTES} bytes\n", status_code=413)
        if notifications is None:
            return PlainTextResponse("this watcher has no webhook secret\n", status_code=404)
        problem = notifications.problem(request.headers, body)
        if problem:
            _log.warning("a notification was refused: %s", problem)
            return PlainTextResponse(f"{problem}\n", status_code=401)
        if notifications.is_new(request.headers):
            bell.ring()
        return Response(status_code=204)

    async def health(_request: Request) -> Response:
        return _verdict(is_well=pulse.is_alive, words="the loop does not turn")

    async def ready(_request: Request) -> Response:
        return _verdict(is_well=pulse.is_ready, words=pulse.failure or "no round was finished yet")

    async def metrics(_request: Request) -> Response:
        return Response(rendered(pulse), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def standings(_request: Request) -> Response:
        document = {"models": to_json(pulse.standings), "failure": pulse.failure}
        # Escaped, since a model's words may hold what UTF-8 cannot.
        return Response(json.dumps(document), media_type="application/json")

    return Starlette(
        routes=[
            Route(WEBHOOK_PATH, webhook, methods=["POST"]),
            Route("/healthz", health),
            Route("/readyz", ready),
            Route("/metrics", metrics),
            Route("/status", standings),
        ]
    )


def serve_endpoint(address: str, app: Starlette) -> str:
    """Answer at ``HOST:PORT`` until the process ends; returns the address with its real port.

    Raises:
        SettingsError: The address cannot be used.
    """
    host, colon, port = address.rpartition(":")
    try:
        listener = socket.create_server((host.strip("[]") or "127.0.0.1", int(port)), backlog=128)
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(
            f"cannot listen on {address!r}: {error}",
            hint="choose another --listen HOST:PORT; port 0 takes any free one",
        ) from error
    if not colon:
        raise SettingsError(f"{address!r} is not HOST:PORT", hint="such as 127.0.0.1:8090")
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    sys.setswitchinterval(_SWITCH_SECONDS)
    bound = listener.getsockname()
    return f"{bound[0]}:{bound[1]}"


async def _bounded_body(request: Request) -> bytes | None:
    """The body; None for one that is too long, of which the rest is not read."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                return None
    except ClientDisconnect:
        return b""
    return body


def _verdict(*, is_well: bool, words: str) -> Response:
    text = "ok" if is_well else words
    content = f"{text}\n".encode(errors="backslashreplace")
    return PlainTextResponse(content, status_code=200 if is_well else 503)
