"""From setting an alias to the first correct answer through gRPC, with `tritonpipe watch` at work.

A small scikit-learn model gets new versions (exported, compared, published), versions that were
exported before, and goes back to one that was served before. Each time is compared with Triton's
poll interval, which none of it can be shorter than on the average. Then the cost of a round over
many registered models with nothing to do.

    python benchmarks/alias_to_answer.py [--rounds 11] [--poll-seconds 1] [--models 1000]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from idle_registry import idle_rounds
from mlflow.tracking import MlflowClient
from sklearn.linear_model import LogisticRegression

from pipeline.errors import UnavailableError
from pipeline.flows.servers import open_servers
from pipeline.settings import load_settings
from pipeline.stack import Stack
from pipeline.stack.shell import point_at_stack
from pipeline.triton import TritonClient

NAME = "wine"
ROWS = np.array([[0.1, 0.2, 0.3], [1.0, -1.0, 2.0]], dtype=np.float32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--poll-seconds", type=int, default=1)
    parser.add_argument("--models", type=int, default=1000)
    options = parser.parse_args()
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder) / "state")
        ports = ("mlflow", "s3", "triton_http", "triton_grpc", "triton_metrics")
        try:
            stack.up(poll_seconds=options.poll_seconds, ports=dict.fromkeys(ports, 0))
            point_at_stack(os.environ, stack.environment_variables())
            os.environ["TRITONPIPE_CACHE"] = f"{folder}/cache"
            aliases(Path(folder), options.rounds, options.poll_seconds)
            idle(options.models)
        finally:
            stack.down()


class Watching:
    """A watcher that MLflow wakes, and what it tells."""

    def __init__(self, folder: Path) -> None:
        secret = folder / "secret"
        command = [sys.executable, "-P", "-m", "pipeline"]
        secret.write_text("benchmark\n")
        self.process = subprocess.Popen(
            [
                *(*command, "watch", "--json", "--interval", "60"),
                *("--listen", "127.0.0.1:0", "--webhook-secret-file", str(secret)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        assert self.process.stdout
        url = self.process.stderr.readline().split()[2].rstrip(":")
        subprocess.run(
            [*command, "webhook", "install", f"{url}/webhook", "--secret-file", str(secret)],
            check=True,
            capture_output=True,
        )
        self.begun: list[float] = []
        self.stages: list[dict[str, float]] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            event = json.loads(line)
            if event["kind"] == "started":
                self.begun.append(event["at"])
            if event["kind"] == "ended":
                self.stages.append(event.get("stages", {}))

    def close(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(60)


def aliases(folder: Path, rounds: int, poll_seconds: int) -> None:
    """The three kinds of wishes, in turns."""
    client = MlflowClient()
    models = {version: register() for version in range(1, 2 * rounds + 3)}
    settings = load_settings()
    watching = Watching(folder)
    seconds: dict[str, list[float]] = {}
    stages: dict[str, list[dict[str, float]]] = {}

    def measure(kind: str, version: int, triton: TritonClient) -> None:
        # Evenly spread over a second: a commit waits for the next one, and so may Triton's poll.
        phase = (0.5 + 0.618 * len(seconds.get(kind, []))) % 1.0
        time.sleep(1.0 + (phase - time.time()) % 1.0)
        done = len(watching.stages)
        started, at = time.perf_counter(), time.time()
        client.set_registered_model_alias(NAME, "champion", version)
        while not is_right(triton, version, models[version]):
            time.sleep(0.01)  # more often, it would take from the servers what it measures
        taken = time.perf_counter() - started
        while len(watching.stages) == done:
            time.sleep(0.05)
        seconds.setdefault(kind, []).append(taken)
        told = {"wake": watching.begun[-1] - at, **watching.stages[-1]}
        rest = taken - sum(told.values()) + told.get("record", 0.0)
        stages.setdefault(kind, []).append({**told, "between": rest})

    try:
        with TritonClient(http=settings.triton_http, grpc=settings.triton_grpc) as triton:
            measure("first version of all", 1, triton)
            for n in range(rounds):
                measure("new version", 2 + n, triton)
                measure("back to a version served before", 1 + n, triton)
                forget_release(2 + n)
                measure("version that was exported before", 2 + n, triton)
    finally:
        watching.close()
    print_table(seconds, stages, poll_seconds)


def forget_release(version: int) -> None:
    """Take away what was published of a version, so that only its export is left in the cache."""
    with open_servers(load_settings()) as servers:
        servers.journal.append(
            NAME, action="gc", event="collected", version=version, previous=None, reason="benchmark"
        )
        keys = [o.key for o in servers.repository.list_folder(f"{NAME}/{version}")]
        servers.repository.delete(keys)


def register() -> LogisticRegression:
    """One more version of the model."""
    rng = np.random.default_rng()
    x = rng.normal(size=(60, 3)).astype(np.float32)
    model = LogisticRegression().fit(x, (x @ rng.normal(size=3) > 0).astype(np.int64))
    with mlflow.start_run():
        mlflow.sklearn.log_model(
            model,
            name="model",
            input_example=ROWS,
            pip_requirements=["mlflow"],
            registered_model_name=NAME,
        )
    return model


def is_right(triton: TritonClient, version: int, model: LogisticRegression) -> bool:
    """Whether the version that is wished answers, and as the model itself does."""
    try:
        answer = triton.infer("grpc", NAME, {"X": ROWS})
    except UnavailableError:  # not served yet
        return False
    expected = model.predict_proba(ROWS)
    return answer.version == version and np.allclose(
        answer.outputs["probabilities"], expected, 1e-3, 1e-5
    )


def print_table(
    seconds: dict[str, list[float]], stages: dict[str, list[dict[str, float]]], poll_seconds: int
) -> None:
    """Medians, and what is beyond a poll interval."""
    print(f"Triton polls every {poll_seconds} s; medians, in seconds")
    print("| wish | times | total | at most | beyond the poll interval | of which stages |")
    print("|---|---|---|---|---|---|")
    for kind, taken in seconds.items():
        names = Counter(name for each in stages[kind] for name in each)
        shown = ", ".join(
            f"{name} {statistics.median(s.get(name, 0.0) for s in stages[kind]):.2f}"
            for name in names
        )
        total = statistics.median(taken)
        print(
            f"| {kind} | {len(taken)} | {total:.2f} | {max(taken):.2f} "
            f"| {total - poll_seconds:+.2f} | {shown} |"
        )


def idle(models: int) -> None:
    """The cost of a round over many models that need nothing."""
    with idle_rounds(models, NAME) as rounds:
        first = timed(rounds.step)
        later = [timed(rounds.step) for _ in range(5)]
    wall, cpu = (statistics.median(each[n] for each in later) for n in (0, 1))
    print(
        f"{models} registered models, nothing to do: {wall:.2f} s and {cpu:.2f} s of processor "
        f"time per round; the first one {first[0]:.2f} s and {first[1]:.2f} s"
    )


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and processor seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    main()
