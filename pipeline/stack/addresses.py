"""Where the servers of a stack are, in the words of those who use them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.stack.credentials import REGION, S3Key
from pipeline.stack.ports import LOOPBACK, Ports
from pipeline.stack.s3_server import BUCKET, PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the servers of a stack are, or will be after the next ``up``."""

    mlflow: str
    s3: str
    triton_http: str
    triton_grpc: str
    triton_metrics: str
    repository: str


def addresses_from_ports(ports: Ports) -> Addresses:
    """The addresses of the servers on these ports; all of them with a scheme but gRPC's."""
    return Addresses(
        mlflow=f"http://{LOOPBACK}:{ports.mlflow}",
        s3=f"http://{LOOPBACK}:{ports.s3}",
        triton_http=f"http://{LOOPBACK}:{ports.triton_http}",
        triton_grpc=f"{LOOPBACK}:{ports.triton_grpc}",
        triton_metrics=f"http://{LOOPBACK}:{ports.triton_metrics}/metrics",
        repository=f"s3://{BUCKET}/{PREFIX}",
    )


def client_variables(addresses: Addresses, key: S3Key, locks: Path) -> dict[str, str]:
    """What clients need to find the servers, by the names that each client knows.

    Args:
        addresses: Where the servers are.
        key: Of the S3 server, which ignores conditional writes: hence the next one.
        locks: Folder with the locks of publishers on this machine.
    """
    return {
        "MLFLOW_TRACKING_URI": addresses.mlflow,
        "AWS_ACCESS_KEY_ID": key.access_key,
        "AWS_SECRET_ACCESS_KEY": key.secret_key,
        "AWS_ENDPOINT_URL": addresses.s3,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "TRITONPIPE_REPOSITORY": addresses.repository,
        "TRITONPIPE_LOCK": str(locks),
        "TRITONPIPE_TRITON_HTTP": addresses.triton_http.removeprefix("http://"),
        "TRITONPIPE_TRITON_GRPC": addresses.triton_grpc,
    }
