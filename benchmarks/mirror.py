"""How many requests S3 gets while nothing changes: Triton polling it, and a mirror following it.

One model is served by ONNX Runtime, the others are ensembles over it, which need no process each,
with as many objects as a promoted model has: config, warm-up marker, graph, warm-up data, manifest.
A proxy counts what arrives at S3. A look is one poll of Triton or one listing of the mirror.

    python benchmarks/mirror.py [--models 1 10 100] [--interval 5] [--seconds 30]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.flows.progress import silent
from pipeline.manifest import MANIFEST_NAME, digest_folder
from pipeline.stack.addresses import addresses_from_ports
from pipeline.stack.credentials import s3_key
from pipeline.stack.environment import ensure_server_environment
from pipeline.stack.mirror import launch_mirror
from pipeline.stack.part import Launch, Part, http_status
from pipeline.stack.ports import Ports, free_ports
from pipeline.stack.s3_server import launch_s3
from pipeline.stack.state import Mirroring, StateDirectory
from pipeline.stack.triton_server import launch_triton
from pipeline.stores import open_store
from pipeline.testing.prove.entries import Recipe, make_candidate
from pipeline.testing.s3_proxy import S3Proxy
from pipeline.triton import TritonClient

BASE = "model-000"
IS_CURRENT = b"tritonpipe_mirror_seconds_behind 0.0"


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--models", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--interval", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    print(f"interval {options.interval} s, counted for at least {options.seconds:.0f} s")
    print(f"{'models':>6} {'who':<16} {'requests/look':>13} {'s/look':>7} {'requests/min':>12}")
    for count in options.models:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), count, options.interval, options.seconds)


def measure(folder: Path, count: int, interval: int, seconds: float) -> None:
    """Both ways of following one repository."""
    state = StateDirectory(folder / "state")
    state.create()
    chosen = free_ports()
    names = ("mlflow", "s3", "triton_http", "triton_grpc", "triton_metrics", "mirror_metrics")
    ports = Ports(**{name: next(chosen) for name in names})
    environment = ensure_server_environment(silent)
    with running(state, "s3", launch_s3(state, environment, ports.s3)):
        key = s3_key(state)
        os.environ |= {
            "AWS_ACCESS_KEY_ID": key.access_key,
            "AWS_SECRET_ACCESS_KEY": key.secret_key,
            "AWS_ENDPOINT_URL": addresses_from_ports(ports).s3,
            "AWS_REGION": "us-east-1",
        }
        last = publish(folder, count)
        with S3Proxy(ports.s3, lambda _request: None) as proxy:
            port = int(proxy.url.rpartition(":")[2])
            through = replace(ports, s3=port)
            launch = launch_triton(state, environment, through, interval)
            with running(state, "triton", launch):
                await_served(ports, last)
                report(proxy, count, "Triton", f"{BASE}/config.pbtxt", seconds)
            mirror = launch_mirror(state, through, interval, Mirroring.POLL)
            with running(state, "mirror", mirror):
                wait(lambda: IS_CURRENT in http_status(ports.mirror_metrics, "/metrics")[1], 600)
                report(proxy, count, "mirror", "", seconds)


def publish(folder: Path, count: int) -> str:
    """Fill the repository; gives the name of the model that Triton loads last."""
    store = open_store("s3://models/repository")
    for number in range(count):
        name = f"model-{number:03}"
        work = folder / name
        work.mkdir()
        recipe = Recipe(model=name, version=1, steps=(BASE,) if number else ())
        entry = make_candidate(recipe, work).entry
        assert entry is not None
        files = entry.folder
        if number:
            for file, size in (("model.onnx", 300), ("warmup-0.bin", 16)):
                (files / file).write_bytes(bytes(size))
        manifest = replace(entry.manifest, files=digest_folder(files))
        for listed in manifest.files:
            store.put(f"{name}/1/{listed.path}", files / listed.path)
        store.put(f"{name}/1/{MANIFEST_NAME}", manifest.to_bytes())
        store.put(f"{name}/warmup/README", b"see N/warmup-*.bin\n")
        store.put(f"{name}/config.pbtxt", entry.config.encode())
    return f"model-{count - 1:03}"


def report(proxy: S3Proxy, count: int, who: str, once_per_look: str, seconds: float) -> None:
    """Count whole looks; each begins with the request of which there is one per look."""

    def looks() -> list[int]:
        return [
            number
            for number, seen in enumerate(proxy.seen)
            if (seen.request.method == "HEAD" and seen.request.path.endswith(once_per_look))
            or (not once_per_look and seen.request.is_listing)
        ]

    already = len(looks())
    wait(lambda: len(looks()) > already, 600)
    started, first = time.monotonic(), looks()[-1]
    time.sleep(seconds)
    already = len(looks())
    wait(lambda: len(looks()) > already, 600)
    elapsed, positions = time.monotonic() - started, [p for p in looks() if p >= first]
    number = len(positions) - 1
    per_look = (positions[-1] - positions[0]) / number
    each = elapsed / number
    print(f"{count:>6} {who:<16} {per_look:>13.1f} {each:>7.1f} {per_look * 60 / each:>12.0f}")


def await_served(ports: Ports, model: str) -> None:
    """Until Triton has loaded everything."""
    where = addresses_from_ports(ports)
    with TritonClient(http=where.triton_http, grpc=where.triton_grpc) as triton:
        wait(lambda: triton.is_ready(model, 1) and triton.is_ready(BASE, 1), 600)


def wait(condition: Callable[[], bool], seconds: float) -> None:
    """Until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited in vain")
        time.sleep(0.05)


@contextmanager
def running(state: StateDirectory, name: str, launch: Launch) -> Iterator[None]:
    """A server, while the body runs."""
    part = Part(state, name, name, stop_patience=10)
    state.folder("logs")
    part.start(launch)
    try:
        part.wait_until_ready(launch)
        yield
    finally:
        part.stop()


if __name__ == "__main__":
    main()
