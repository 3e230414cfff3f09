"""A proxy before an S3 server that numbers the requests and breaks the chosen ones.

One proxy stands before one client, so a number means the same request in every run of the same
work, but for those that the client sends in parallel. The ``Host`` header is passed on, so that
signatures stay valid. What did happen is on record, so that a report can say what request 17 was.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final
from urllib.parse import parse_qs

from pipeline.testing.s3_faults import (
    KILLS,
    REFUSALS,
    Answer,
    Fault,
    Lag,
    Request,
    corrupted,
    shifted,
    truncated,
)

_LOOPBACK: Final = "127.0.0.1"
_PATIENCE: Final = 60.0
_OF_THE_CONNECTION: Final = frozenset({"connection", "transfer-encoding", "content-length"})

Choose = Callable[[Request], Fault | None]
"""Says what happens to a request; None lets it pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A request and what became of it; status 0 if it was given none."""

    request: Request
    fault: Fault | None
    status: int

    def __str__(self) -> str:
        return f"{self.request.number}: {self.request} -> {self.status or 'no answer'}"


class S3Proxy:
    """Listens on a port of its own while the body of its context runs.

    Attributes:
        victim: The process that the kills are for; set it before its first request.
    """

    def __init__(
        self, upstream: int, choose: Choose, *, silence: float = 130.0, lag: float = 2.0
    ) -> None:
        self.victim: int | None = None
        self._upstream = upstream
        self._choose = choose
        self._silence = silence
        self._lag = Lag(lag)
        self._lock = threading.Lock()
        self._count = 0
        self._seen: list[Seen] = []
        self._closing = threading.Event()
        self._is_dead = False
        self._server = _Server((_LOOPBACK, 0), _handler_of(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> S3Proxy:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The endpoint for the client."""
        return f"http://{_LOOPBACK}:{self._server.server_address[1]}"

    @property
    def seen(self) -> tuple[Seen, ...]:
        """What came through so far, in the order in which it was answered."""
        with self._lock:
            return tuple(self._seen)

    @property
    def broken(self) -> Seen | None:
        """The first request to which something was done."""
        return min((s for s in self.seen if s.fault), key=lambda s: s.request.number, default=None)

    def answer(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> Answer | None:
        """What one request gets; None if its connection is to be reset without an answer."""
        path, _, query = target.partition("?")
        with self._lock:
            if self._is_dead:
                return None
            self._count += 1
            request = Request(
                number=self._count, method=method, path=path, query=query, size=len(body)
            )
            fault = self._choose(request)
            if fault is Fault.KILL_BEFORE:
                self._kill()
        answer = self._treated(request, fault, target, headers, body)
        with self._lock:
            if fault is Fault.KILL_AFTER:
                self._kill()
            status = answer.status if answer else 0
            self._seen.append(Seen(request=request, fault=fault, status=status))
        return None if fault in KILLS or fault is Fault.LOST_ANSWER else answer

    def _treated(
        self,
        request: Request,
        fault: Fault | None,
        target: str,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> Answer | None:
        if fault in REFUSALS:
            return REFUSALS[fault]
        if fault is Fault.SILENCE:
            self._closing.wait(self._silence)
            return None
        if fault in {Fault.RESET, Fault.KILL_BEFORE}:
            return None
        if fault is Fault.KILL_DURING:
            self._send_half(request, target, headers, body)
            return None
        sent = corrupted(body) if fault is Fault.CORRUPTED_UPLOAD else body
        answer = self._forwarded(request.method, target, headers, sent)
        if answer and request.method in {"PUT", "POST", "DELETE"} and answer.status < 300:
            self._lag.note_write(request.path)
        return answer and self._falsified(request, fault, answer)

    def _falsified(self, request: Request, fault: Fault | None, answer: Answer) -> Answer:
        if fault is Fault.TRUNCATED:
            return truncated(answer)
        if fault is Fault.CORRUPTED:
            return replace(answer, body=corrupted(answer.body))
        if fault in {Fault.CLOCK_AHEAD, Fault.CLOCK_BEHIND}:
            return shifted(answer, 1 if fault is Fault.CLOCK_AHEAD else -1)
        if fault is Fault.STALE_LISTING and request.is_listing and answer.status == 200:
            return self._lag.stale(answer, parse_qs(request.query).get("prefix", [""])[0])
        return answer

    def _forwarded(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> Answer | None:
        connection = http.client.HTTPConnection(_LOOPBACK, self._upstream, timeout=_PATIENCE)
        try:
            _send_head(connection, method, target, headers)
            connection.send(body)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        kept = tuple(h for h in response.getheaders() if h[0].lower() not in _OF_THE_CONNECTION)
        length = response.getheader("Content-Length")
        promised = int(length) if method == "HEAD" and length else None
        return Answer(status=response.status, headers=kept, body=content, promised=promised)

    def _send_half(
        self, request: Request, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        connection = http.client.HTTPConnection(_LOOPBACK, self._upstream, timeout=_PATIENCE)
        with contextlib.suppress(OSError, http.client.HTTPException):
            _send_head(connection, request.method, target, headers)
            connection.send(body[: len(body) // 2])
            time.sleep(0.05)
            with self._lock:
                self._kill()
        connection.close()

    def _kill(self) -> None:
        """Nothing that the victim had on its way reaches the store after this."""
        self._is_dead = True
        if self.victim is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.victim, signal.SIGKILL)


def _send_head(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    headers: list[tuple[str, str]],
) -> None:
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        if name.lower() != "connection":
            connection.putheader(name, value)
    connection.endheaders()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed has nobody to be told."""


def _handler_of(proxy: S3Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = proxy.answer(self.command, self.path, self.headers.items(), body)
            if answer is None:
                self._reset()
                return
            self.send_response_only(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            length = len(answer.body) if answer.promised is None else answer.promised
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(answer.body)
            self.close_connection = answer.promised is not None and self.command != "HEAD"

        def _reset(self) -> None:
            self.close_connection = True
            # Closing with unsent data dropped is a reset instead of an orderly end.
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.connection.close()

        # The names under which http.server looks for methods.
        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """What happened is on record in the proxy."""

    return Handler
