"""How long a watcher takes to answer a notification of MLflow, idle and in the midst of a round.

python benchmarks/webhook.py [--notifications 1000]
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import threading
import time
import uuid

from pipeline.watch.bell import Bell
from pipeline.watch.endpoint import WEBHOOK_PATH, application, serve_endpoint
from pipeline.watch.notifications import (
    DELIVERY,
    SIGNATURE,
    TIMESTAMP,
    Notifications,
    signature_of,
)
from pipeline.watch.pulse import Pulse

SECRET = "benchmark"
BODY = json.dumps({"entity": "model_version_alias", "data": {"name": "m", "alias": "champion"}})
GOAL_SECONDS = 0.05


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--notifications", type=int, default=1000)
    options = parser.parse_args()
    bell = Bell()
    app = application(Pulse(interval=60.0), bell, Notifications(SECRET))
    address = serve_endpoint("127.0.0.1:0", app)
    answers(address, 50)  # the first ones import
    told("idle", answers(address, options.notifications))
    stop = threading.Event()
    busy = threading.Thread(target=compute, args=(stop,))
    busy.start()
    try:
        told("while the same process computes", answers(address, options.notifications))
    finally:
        stop.set()
        busy.join()


def answers(address: str, number: int) -> list[float]:
    """Seconds that each of so many notifications took, each with a connection of its own."""
    found = []
    for _ in range(number):
        delivery, at = uuid.uuid4().hex, str(int(time.time()))
        headers = {
            DELIVERY: delivery,
            TIMESTAMP: at,
            SIGNATURE: signature_of(SECRET.encode(), delivery, at, BODY.encode()),
        }
        begun = time.perf_counter()
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request("POST", WEBHOOK_PATH, BODY, headers)
        answer = connection.getresponse()
        answer.read()
        found.append(time.perf_counter() - begun)
        connection.close()
        if answer.status != 204:
            raise RuntimeError(f"the watcher answered {answer.status}")
    return found


def compute(stop: threading.Event) -> None:
    """What a round does between its requests: make values of text."""
    document = json.dumps([{"name": f"model-{n}", "aliases": {"champion": n}} for n in range(1000)])
    while not stop.is_set():
        json.loads(document)


def told(how: str, seconds: list[float]) -> None:
    """Print one row."""
    late = sum(s > GOAL_SECONDS for s in seconds)
    print(
        f"{how}: median {statistics.median(seconds) * 1e3:.1f} ms, "
        f"99 % within {statistics.quantiles(seconds, n=100)[98] * 1e3:.1f} ms, "
        f"longest {max(seconds) * 1e3:.1f} ms; {late} of {len(seconds)} above "
        f"{GOAL_SECONDS * 1e3:.0f} ms"
    )


if __name__ == "__main__":
    main()
