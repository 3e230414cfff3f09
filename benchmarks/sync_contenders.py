"""What the sync benchmark compares, each as the command that a user of it would run.

All decide by size alone. The numbers of parallel transfers are the ones with which each was fastest
on many small files; parts and the rest are as they come.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.stack.environment import ensure_server_environment

HERE = Path(__file__).parent
RIVALS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tritonpipe" / "rivals"
_PACKAGES = ("awscli>=1.44,<2", "boto3>=1.42,<2")

_BOTO3 = """
import pathlib, sys, boto3
from s3transfer.manager import TransferConfig, TransferManager
folder, (bucket, _, prefix) = pathlib.Path(sys.argv[1]), sys.argv[2][5:].partition("/")
client = boto3.client("s3")
pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/")
held = {o["Key"]: o["Size"] for page in pages for o in page.get("Contents", [])}
with TransferManager(client, TransferConfig(max_request_concurrency=16)) as manager:
    waiting = []
    for path in folder.rglob("*"):
        key = f"{prefix}/{path.relative_to(folder).as_posix()}"
        if held.get(key) != path.stat().st_size:
            waiting.append(manager.upload(str(path), bucket, key))
    for future in waiting:
        future.result()
"""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A name, and the command that brings a folder to an ``s3://`` URL."""

    name: str
    command: Callable[[Path, str], list[str]]


def contenders() -> list[Contender]:
    """All of them, ours first; installs what is missing into an environment of its own."""
    rclone = str(ensure_server_environment().rclone)
    python = str(_rivals_python())
    aws = str(Path(python).with_name("aws"))
    options = ("--transfers=32", "--checkers=32", "--size-only", "--s3-no-check-bucket")
    return [
        Contender(
            name="tritonpipe",
            command=lambda folder, url: [
                *(sys.executable, str(HERE / "sync_ours.py"), str(folder), url)
            ],
        ),
        Contender(
            name="rclone sync",
            command=lambda folder, url: [
                *(rclone, "sync", *options, str(folder), url.replace("s3://", "target:"))
            ],
        ),
        Contender(
            name="aws s3 sync",
            command=lambda folder, url: [
                *(aws, "s3", "sync", "--size-only", "--only-show-errors", str(folder), url)
            ],
        ),
        Contender(
            name="boto3 (s3transfer)",
            command=lambda folder, url: [python, "-c", _BOTO3, str(folder), url],
        ),
    ]


def variables(endpoint: str, access_key: str, secret_key: str) -> dict[str, str]:
    """The environment that leads all of them to the same server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_TARGET_TYPE": "s3",
        "RCLONE_CONFIG_TARGET_PROVIDER": "Rclone",
        "RCLONE_CONFIG_TARGET_ENDPOINT": endpoint,
        "RCLONE_CONFIG_TARGET_ENV_AUTH": "true",
    }


def _rivals_python() -> Path:
    """An environment with other AWS libraries than ours, made once."""
    python = RIVALS / "bin" / "python"
    if not (RIVALS / "bin" / "aws").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(RIVALS)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *_PACKAGES], check=True)
    return python
