"""The same scikit-learn model behind ``mlflow models serve`` and behind Triton.

Same machine, same run, one row per request, closed-loop clients at several numbers of connections.
The systems take turns in every round, and ratios are taken within a round, because machines are
noisy. Prints a Markdown table for each of two models: a logistic regression on four numbers, the
case that suits MLflow best, and the demo's pipeline on columns of text and numbers.

    python benchmarks/serving.py [--rounds 3] [--seconds 3] [--state-dir DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from systems import (
    System,
    mlflow_models_serve,
    mlflow_system,
    triton_grpc_system,
    triton_http_system,
)

from pipeline.artifacts import PromotionRequest
from pipeline.demo import science
from pipeline.flows.promote import promote
from pipeline.settings import load_settings
from pipeline.stack import Stack
from pipeline.stack.shell import point_at_stack

CONNECTIONS = (1, 8, 32)
HERE = Path(__file__).parent


def main() -> None:
    """Start everything, measure, print."""
    options = parse_options()
    stack = Stack(options.state_dir)
    was_running = stack.is_running
    try:
        stack.up()
        point_at_stack(os.environ, stack.environment_variables())
        for title, trained, row in (
            ("four numbers", *train_iris()),
            ("mixed columns", *train_churn()),
        ):
            request = PromotionRequest(model=trained.model, version=trained.version)
            promote(request, load_settings())
            with mlflow_models_serve(trained) as address:
                systems = [
                    mlflow_system(address, row),
                    triton_http_system(trained),
                    triton_grpc_system(trained),
                ]
                results = measure(
                    systems,
                    expected=int(trained.outputs["label"][0]),
                    rounds=options.rounds,
                    seconds=options.seconds,
                )
            print_table(title, systems, results)
    finally:
        if not was_running:
            stack.down()


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--state-dir", type=Path)
    return parser.parse_args()


def train_churn() -> tuple[science.Trained, dict[str, Any]]:
    """The demo's pipeline, and one row as MLflow's documentation says to send a DataFrame."""
    trained = science.train_churn()
    columns = list(trained.inputs)
    row = [trained.inputs[name][0, 0] for name in columns]
    values = [value if isinstance(value, str) else float(value) for value in row]
    return trained, {"dataframe_split": {"columns": columns, "data": [values]}}


def train_iris() -> tuple[science.Trained, dict[str, Any]]:
    """A logistic regression on an array, and one row as MLflow's documentation says to send it."""
    flowers = load_iris()
    rows = flowers.data.astype(np.float32)
    model = LogisticRegression(max_iter=500).fit(rows, flowers.target)
    with science.mlflow_run("LogisticRegression"):
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            input_example=rows[:8],
            serialization_format="cloudpickle",
            registered_model_name="bench-iris",
        )
    trained = science.Trained(
        model="bench-iris",
        version=int(info.registered_model_version),
        accuracy=float(model.score(rows, flowers.target)),
        inputs={"X": rows[:8]},
        outputs={"label": model.predict(rows[:8])},
    )
    return trained, {"inputs": rows[:1].tolist()}


Results = dict[tuple[str, int], list[dict[str, float]]]


def measure(systems: list[System], *, expected: int, rounds: int, seconds: float) -> Results:
    """Let the systems take turns; the first, short turn of each only warms it up."""
    results: Results = {}
    for system in systems:
        one_measurement(system, connections=8, seconds=1.0)
    for number in range(rounds):
        for connections in CONNECTIONS:
            for system in systems:
                measured = one_measurement(system, connections=connections, seconds=seconds)
                labels = {system.label(b64decode(answer)) for answer in measured.pop("answers")}
                if measured["failed"] or labels != {expected}:
                    failed = measured["failed"]
                    sys.exit(f"{system.name}: {failed} requests failed, answers {labels}")
                results.setdefault((system.name, connections), []).append(measured)
        print(f"round {number + 1} of {rounds} done", file=sys.stderr)
    return results


def one_measurement(system: System, *, connections: int, seconds: float) -> dict[str, Any]:
    """Run the load generator once, in a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as job:
        json.dump(
            {
                "protocol": system.protocol,
                "address": system.address,
                "request": b64encode(system.request).decode(),
                "connections": connections,
                "seconds": seconds,
            },
            job,
        )
        job.flush()
        command = [sys.executable, str(HERE / "closed_loop.py"), job.name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def print_table(title: str, systems: list[System], results: Results) -> None:
    """Medians over the rounds; the ratio is the median of the ratios within each round."""
    baseline = systems[0].name
    print(
        f"\n{title}: {os.cpu_count()} processors shared by server and clients, medians of rounds\n"
    )
    print("| connections | server | requests/s | p50 ms | p99 ms | throughput ratio |")
    print("|---|---|---|---|---|---|")
    for connections in CONNECTIONS:
        for system in systems:
            mine, base = results[system.name, connections], results[baseline, connections]
            medians = [
                statistics.median(m[key] for m in mine)
                for key in ("requests_per_second", "p50_milliseconds", "p99_milliseconds")
            ]
            ratios = [
                m["requests_per_second"] / b["requests_per_second"]
                for m, b in zip(mine, base, strict=True)
            ]
            rate, p50, p99 = medians
            print(
                f"| {connections} | {system.name} | {rate:,.0f} | {p50:.2f} | {p99:.2f} "
                f"| {statistics.median(ratios):.1f} |"
            )


if __name__ == "__main__":
    main()
