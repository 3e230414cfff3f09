"""A closed-loop load generator: each connection sends its next request when it has its answer.

Run as a process of its own by ``serving.py``. It sends bytes prepared beforehand and decodes
nothing, so that on a small machine it takes little from the server that it measures. The distinct
answers are handed back to be checked: there are few, since all requests are equal.

    python closed_loop.py JOB.json      prints one JSON object
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Tally:
    """Latencies in seconds, and what went wrong."""

    deadline: float
    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    answers: set[bytes] = field(default_factory=set)

    def count(self, started: float, answer: bytes, *, ok: bool) -> bool:
        """Count one answer; gives whether to go on."""
        now = time.perf_counter()
        self.latencies.append(now - started)
        if ok:
            self.answers.add(answer)
        else:
            self.failed += 1
        return now < self.deadline


class HttpConnection(asyncio.Protocol):
    """Sends the same HTTP request again and again."""

    def __init__(self, request: bytes, tally: Tally, done: asyncio.Future[None]) -> None:
        self._request, self._tally, self._done = request, tally, done
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Collect one whole answer, count it, and send again."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        if len(body) < length:
            return
        self._buffer = b""
        if self._tally.count(self._started, body, ok=b" 200 " in head[:16]):
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; a server that hangs up is a failure."""
        if exc is not None:
            self._tally.failed += 1
        if not self._done.done():
            self._done.set_result(None)

    def _send(self) -> None:
        self._started = time.perf_counter()
        self._transport.write(self._request)


async def run_http(address: str, request: bytes, connections: int, tally: Tally) -> None:
    """Closed loop over HTTP/1.1."""
    host, port = address.split(":")
    loop = asyncio.get_running_loop()
    ends = [loop.create_future() for _ in range(connections)]
    for end in ends:
        await loop.create_connection(
            lambda end=end: HttpConnection(request, tally, end),  # type: ignore[misc]
            host,
            int(port),
        )
    await asyncio.gather(*ends)


async def run_grpc(address: str, request: bytes, connections: int, tally: Tally) -> None:
    """Closed loop over gRPC; each connection is a channel of its own."""
    import grpc

    async def loop(number: int) -> None:
        options = [("grpc.channel_number", number)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            going = True
            while going:
                started = time.perf_counter()
                try:
                    answer, ok = await call(request), True
                except grpc.aio.AioRpcError:
                    answer, ok = b"", False
                going = tally.count(started, answer, ok=ok)

    await asyncio.gather(*(loop(number) for number in range(connections)))


def main() -> None:
    """Run the job and print what was measured."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    request = b64decode(job["request"])
    started = time.perf_counter()
    tally = Tally(deadline=started + job["seconds"])
    run = run_grpc if job["protocol"] == "grpc" else run_http
    asyncio.run(run(job["address"], request, job["connections"], tally))
    elapsed = time.perf_counter() - started
    latencies = sorted(tally.latencies)
    print(
        json.dumps(
            {
                "requests_per_second": len(latencies) / elapsed,
                "p50_milliseconds": statistics.median(latencies) * 1000,
                "p99_milliseconds": latencies[int(len(latencies) * 0.99)] * 1000,
                "requests": len(latencies),
                "failed": tally.failed,
                "answers": [b64encode(answer).decode() for answer in tally.answers],
            }
        )
    )


if __name__ == "__main__":
    main()
