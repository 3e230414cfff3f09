"""A server that keeps the headers of what it is asked, and answers as S3 would."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_CREATED = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
_COMPLETED = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"


@dataclass(frozen=True, slots=True)
class Recorded:
    line: str
    headers: Message
    body: bytes


@dataclass(slots=True)
class Recording:
    """What was asked so far, and answers to particular paths."""

    url: str = ""
    requests: list[Recorded] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)

    def of(self, beginning: str) -> Recorded:
        """The first request whose line begins so."""
        return next(r for r in self.requests if r.line.startswith(beginning))


@contextmanager
def recording(certificate: Path | None = None) -> Iterator[Recording]:
    """Serve on loopback; over TLS with a certificate, whose file holds the key, too."""
    record = Recording()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            record.requests.append(Recorded(f"{self.command} {self.path}", self.headers, body))
            path, _, query = self.path.partition("?")
            content = record.answers.get(path, b"")
            if self.command == "POST" and not content:
                content = _CREATED if query.startswith("uploads") else _COMPLETED
            self.send_response(200)
            self.send_header("ETag", '"e"')
            self.send_header("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    record.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield record
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
