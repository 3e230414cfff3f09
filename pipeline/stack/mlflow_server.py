"""MLflow: the registry in SQLite, artifacts in a folder and handed out by the server itself."""

from __future__ import annotations

import os

from pipeline.stack.credentials import webhook_key
from pipeline.stack.environment import ServerEnvironment
from pipeline.stack.inheritance import inherited
from pipeline.stack.part import Launch, http_status
from pipeline.stack.ports import LOOPBACK
from pipeline.stack.state import StateDirectory


def launch_mlflow(state: StateDirectory, environment: ServerEnvironment, port: int) -> Launch:
    """Say how the server is started."""
    folder = state.folder("mlflow")
    return Launch(
        command=(
            # -P: the working directory must not be importable.
            *(str(environment.python), "-P", "-m", "mlflow", "server"),
            *("--host", LOOPBACK, "--port", str(port)),
            # Several workers answer some 40 ms later each, and one is enough here.
            *("--workers", "1"),
            # Relative to the working directory, so that no path has to be written as a URL.
            *("--backend-store-uri", "sqlite:///mlflow.db"),
            *("--artifacts-destination", "./artifacts", "--serve-artifacts"),
        ),
        environment={
            **inherited(os.environ),
            "PATH": f"{environment.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONSAFEPATH": "1",  # -P also for the workers
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": webhook_key(state),
            # Webhooks to this machine are the point of a local stack; MLflow refuses them else.
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            # Otherwise a new webhook is told of nothing for up to a minute.
            "MLFLOW_WEBHOOK_CACHE_TTL": "1",
        },
        directory=folder,
        ports=(port,),
        answers=lambda: http_status(port, "/health")[0] == 200,
    )
