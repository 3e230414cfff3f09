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
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from pipeline.artifacts import PromotionRequest
from pipeline.demo import science
from pipeline.demo.traffic import request_tensors
from pipeline.flows.promote import promote
from pipeline.settings import load_settings
from pipeline.stack import Stack
from pipeline.stack.environment import ensure_server_environment
from pipeline.stack.shell import point_at_stack

CONNECTIONS = (1, 8, 32)
HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class System:
    """What is measured: where it listens and the bytes of one request."""

    name: str
    protocol: str
    address: str
    request: bytes
    label: Callable[[bytes], int]
    """The predicted label in an answer."""


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
                systems = [mlflow_system(address, row), *triton_systems(trained)]
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


@contextmanager
def mlflow_models_serve(trained: science.Trained) -> Iterator[str]:
    """MLflow's own scoring server, with one worker, its default."""
    python = ensure_server_environment().python
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += [
        "-m",
        f"models:/{trained.model}/{trained.version}",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    with tempfile.TemporaryFile() as log:
        # MLflow starts its web server through a shell that must find it.
        path = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | path, start_new_session=True
        )
        try:
            wait_until_up(port, server, log)
            yield f"127.0.0.1:{port}"
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def wait_until_up(port: int, server: subprocess.Popen[bytes], log: Any) -> None:
    """Wait for the scoring server to answer; end with its log if it does not."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=1):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
        if server.poll() is not None:
            break
    log.seek(0)
    sys.exit("mlflow models serve did not start:\n" + log.read().decode(errors="replace")[-3000:])


def mlflow_system(address: str, row: dict[str, Any]) -> System:
    """One row for the scoring server."""
    body = json.dumps(row)
    request = http_request(address, "/invocations", body.encode(), "Content-Type: application/json")
    return System(
        name="mlflow models serve",
        protocol="http",
        address=address,
        request=request,
        label=lambda answer: int(json.loads(answer)["predictions"][0]),
    )


def triton_systems(trained: science.Trained) -> list[System]:
    """One row as tritonclient encodes it, over both protocols."""
    import tritonclient.grpc as grpc_client
    import tritonclient.http as http_client
    from tritonclient.grpc import service_pb2
    from tritonclient.grpc._utils import _get_inference_request

    settings = load_settings()
    row = {name: array[:1] for name, array in trained.inputs.items()}
    body, json_size = http_client.InferenceServerClient.generate_request_body(
        request_tensors(http_client, row)
    )
    header = f"Inference-Header-Content-Length: {json_size}"
    path = f"/v2/models/{trained.model}/infer"
    http = http_request(settings.triton_http, path, bytes(body), header)
    message = _get_inference_request(
        model_name=trained.model,
        inputs=request_tensors(grpc_client, row),
        model_version="",
        request_id="",
        outputs=None,
        sequence_id=0,
        sequence_start=False,
        sequence_end=False,
        priority=0,
        timeout=None,
        parameters=None,
    )
    grpc = message.SerializeToString()

    def http_label(answer: bytes) -> int:
        # Labels come first; JSON and binary data are told apart by the end of the JSON document.
        document, end = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
        sizes = [output["parameters"]["binary_data_size"] for output in document["outputs"]]
        names = [output["name"] for output in document["outputs"]]
        start = end + sum(sizes[: names.index("label")])
        return int.from_bytes(answer[start : start + 8], "little")

    def grpc_label(answer: bytes) -> int:
        response = service_pb2.ModelInferResponse.FromString(answer)
        position = [output.name for output in response.outputs].index("label")
        return int.from_bytes(response.raw_output_contents[position], "little")

    return [
        System(
            name="Triton HTTP",
            protocol="http",
            address=settings.triton_http,
            request=http,
            label=http_label,
        ),
        System(
            name="Triton gRPC",
            protocol="grpc",
            address=settings.triton_grpc,
            request=grpc,
            label=grpc_label,
        ),
    ]


def http_request(address: str, path: str, body: bytes, header: str) -> bytes:
    """The bytes of a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\n{header}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


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
