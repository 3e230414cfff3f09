"""The client against servers that are not, or no longer, a Triton; no stack is needed."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack

import grpc
import numpy as np
import pytest

from pipeline.errors import SettingsError, UnavailableError
from pipeline.triton import TritonClient, VersionState

INPUTS = {"x": np.zeros((1, 2), dtype=np.float32)}
Serve = Callable[[bytes], TritonClient]


def answer(body: bytes, *headers: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    lines = (b"HTTP/1.1 200 OK", b"Connection: close", length, *headers, b"", body)
    return b"\r\n".join(lines)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that answers every request with the same bytes and hangs up."""
    with ExitStack() as stack:

        def start(reply: bytes) -> TritonClient:
            class Handler(socketserver.BaseRequestHandler):
                def handle(self) -> None:
                    self.request.recv(65536)
                    self.request.sendall(reply)
                    # Without this, unread bytes of the request would turn the end into a reset.
                    self.request.shutdown(socket.SHUT_WR)
                    self.request.recv(65536)

            server = stack.enter_context(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            address = f"127.0.0.1:{server.server_address[1]}"
            return stack.enter_context(TritonClient(http=address, grpc=address, timeout=5))

        yield start


BROKEN = {
    "closed without an answer": b"",
    "closed in the head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "another protocol": b"SSH-2.0-OpenSSH_9.2\r\n",
}
FOREIGN = {
    "a part": answer(b"[]")[:-1],
    "not JSON": answer(b"<html>welcome</html>"),
    "nothing": answer(b""),
    "another document": answer(b'{"status": "ok"}'),
    "another list": answer(b"[1, 2]"),
    "a number": answer(b"1"),
}


@pytest.mark.parametrize("reply", BROKEN.values(), ids=BROKEN)
def test_a_connection_that_breaks_is_a_server_that_does_not_answer(
    serve: Serve, reply: bytes
) -> None:
    client = serve(reply)
    assert not client.is_ready("m", 1)
    with pytest.raises(UnavailableError, match="does not answer over HTTP"):
        client.require_live()
    with pytest.raises(UnavailableError, match="does not answer over HTTP"):
        client.versions("m")
    with pytest.raises(UnavailableError, match="m gave no answer over http"):
        client.infer("http", "m", INPUTS)
    with pytest.raises(UnavailableError, match="m gave no answer over grpc"):
        client.infer("grpc", "m", INPUTS)


@pytest.mark.parametrize("reply", FOREIGN.values(), ids=FOREIGN)
def test_an_answer_that_is_not_tritons_is_no_answer(serve: Serve, reply: bytes) -> None:
    with pytest.raises(UnavailableError, match="m gave no answer over http: "):
        serve(reply).infer("http", "m", INPUTS)


@pytest.mark.parametrize("reply", FOREIGN.values(), ids=FOREIGN)
def test_a_repository_index_that_is_not_tritons_is_none(serve: Serve, reply: bytes) -> None:
    with pytest.raises(UnavailableError, match="does not answer over HTTP"):
        serve(reply).all_versions()


def test_the_versions_of_all_models_come_with_one_answer(serve: Serve) -> None:
    client = serve(
        answer(
            b'[{"name": "a", "version": "1", "state": "READY"},'
            b' {"name": "a", "version": "2", "state": "UNAVAILABLE", "reason": "no memory"},'
            b' {"name": "b"}]'
        )
    )
    versions = {
        1: VersionState(state="READY", reason=""),
        2: VersionState(state="UNAVAILABLE", reason="no memory"),
    }
    assert client.all_versions() == {"a": versions, "b": {}}
    assert client.versions("a") == versions
    assert client.versions("b") == client.versions("c") == {}


@pytest.mark.parametrize(
    "address",
    ["https://a:8000", "ftp://a:1", "", "a:b", "a:0", "a:99999", "::1:8000", "a b:1", "/x"],
)
def test_what_cannot_be_an_address_is_a_wrong_setting(address: str) -> None:
    with pytest.raises(SettingsError, match="not the HTTP address") as caught:
        TritonClient(http=address, grpc="127.0.0.1:1")
    assert "TRITONPIPE_TRITON_HTTP" in caught.value.hint


@pytest.mark.parametrize("address", ["a", "a:1", "http://a:1/", "[::1]:1", "triton.svc:80/base"])
def test_other_addresses_are_accepted(address: str) -> None:
    with TritonClient(http=address, grpc="127.0.0.1:1") as client:
        assert not client.http_address.startswith("http")


class _Standstill(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Takes every request and answers none before it is told to."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def service(self, _details: object) -> object:
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: self.over.wait(20))


def test_a_server_that_stands_still_is_waited_for_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    standstill, server = _Standstill(), grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((standstill,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with TritonClient(http="127.0.0.1:1", grpc=f"127.0.0.1:{port}", timeout=0.2) as client:
            monkeypatch.setattr(client._probe, "is_server_live", lambda: True)
            with pytest.raises(UnavailableError, match=r"did not answer over gRPC within 0\.2 s"):
                client.require_live()
    finally:
        standstill.over.set()
        server.stop(None).wait()


def test_a_server_that_takes_connections_and_never_answers_is_told_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with TritonClient(http=address, grpc=address, timeout=0.5) as client:
            started = time.monotonic()
            with pytest.raises(UnavailableError, match=r"HTTP within 0\.5 s") as caught:
                client.require_live()
            assert "restart" in caught.value.hint
            assert not client.is_ready("m", 1)
            assert time.monotonic() - started < 5
