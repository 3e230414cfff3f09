"""The secrets of a stack: made once, readable by their owner only, never on a command line."""

from __future__ import annotations

import base64
import json
import secrets
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.serialization import from_json, to_json
from pipeline.stack.state import StateDirectory, write_json, write_private

REGION: Final = "us-east-1"
_ALPHABET: Final = string.ascii_uppercase + string.digits


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Key:
    """The one key of the S3 server."""

    access_key: str
    secret_key: str = field(repr=False)


def s3_key(state: StateDirectory) -> S3Key:
    """The key of this stack, made at the first call."""
    path = state.folder("secrets") / "s3-key.json"
    if not path.is_file():
        # Shaped like a key of AWS, so that no client finds fault with it, and without characters
        # that the server's comma-separated setting would have to escape.
        access_key = "TP" + "".join(secrets.choice(_ALPHABET) for _ in range(18))
        write_json(path, to_json(S3Key(access_key=access_key, secret_key=secrets.token_hex(20))))
    key: S3Key = from_json(S3Key, json.loads(path.read_text()))
    return key


def credentials_file(state: StateDirectory) -> Path:
    """The key as a credentials file of the AWS SDKs, which read it again now and then."""
    key = s3_key(state)
    path = state.folder("secrets") / "aws-credentials"
    write_private(
        path,
        "[default]\n"
        f"aws_access_key_id = {key.access_key}\n"
        f"aws_secret_access_key = {key.secret_key}\n",
    )
    return path


def admin_key_file(state: StateDirectory) -> Path:
    """What opens the part of Triton that loads models: ``NAME=VALUE``, the header to send.

    Triton takes it on its command line only, where every user of this machine can read it.
    """
    path = state.folder("secrets") / "triton-admin-key"
    if not path.is_file():
        write_private(path, f"tritonpipe-admin-key={secrets.token_hex(20)}")
    return path


def webhook_key(state: StateDirectory) -> str:
    """The key that encrypts the secrets of webhooks in MLflow's database.

    Without one MLflow makes up another at each start and cannot read what it stored before.
    """
    path = state.folder("secrets") / "mlflow-webhook-key"
    if not path.is_file():
        write_private(path, base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    return path.read_text()
