"""What the serving benchmark compares: where each system listens, one request, how to read it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

from pipeline.demo import science
from pipeline.demo.traffic import request_tensors
from pipeline.samples import Array
from pipeline.settings import load_settings
from pipeline.stack.environment import ensure_server_environment


@dataclass(frozen=True, kw_only=True)
class System:
    """What is measured: where it listens and the bytes of one request."""

    name: str
    protocol: str
    address: str
    request: bytes
    label: Callable[[bytes], int]
    """The predicted label in an answer."""


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


def triton_http_system(trained: science.Trained) -> System:
    """One row as tritonclient encodes it for HTTP."""
    address = load_settings().triton_http
    client = http_client.InferenceServerClient
    body, json_size = client.generate_request_body(request_tensors(http_client, first_row(trained)))
    header = f"Inference-Header-Content-Length: {json_size}"
    path = f"/v2/models/{trained.model}/infer"

    def label(answer: bytes) -> int:
        # Binary data follows the JSON document; where that ends, an HTTP header would have said.
        _document, end = json.JSONDecoder().raw_decode(answer.decode("latin-1"))
        result = client.parse_response_body(answer, header_length=end)
        return int(result.as_numpy("label").item())

    return System(
        name="Triton HTTP",
        protocol="http",
        address=address,
        request=http_request(address, path, bytes(body), header),
        label=label,
    )


def triton_grpc_system(trained: science.Trained) -> System:
    """The same row for gRPC."""
    request = service_pb2.ModelInferRequest(model_name=trained.model)
    for name, array in first_row(trained).items():
        kind = np_to_triton_dtype(array.dtype)
        request.inputs.add(name=name, datatype=kind, shape=array.shape)
        raw = serialize_byte_tensor(array).item() if kind == "BYTES" else array.tobytes()
        request.raw_input_contents.append(raw)

    def label(answer: bytes) -> int:
        response = service_pb2.ModelInferResponse.FromString(answer)
        return int(grpc_client.InferResult(response).as_numpy("label").item())

    return System(
        name="Triton gRPC",
        protocol="grpc",
        address=load_settings().triton_grpc,
        request=request.SerializeToString(),
        label=label,
    )


def first_row(trained: science.Trained) -> dict[str, Array]:
    """The inputs of one row."""
    return {name: array[:1] for name, array in trained.inputs.items()}


def http_request(address: str, path: str, body: bytes, header: str) -> bytes:
    """The bytes of a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\n{header}\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body
