"""``mlflow deployments run-local``: a model on servers of this machine, for trying it out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.deployments.changes import deploy
from pipeline.deployments.options import options_from_config
from pipeline.flows.progress import Progress, silent
from pipeline.stack import Stack
from pipeline.stack.shell import point_at_stack


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDeployment:
    """Where a model is served now: HTTP address, name and version."""

    address: str
    name: str
    version: str


def run_on_stack(
    name: str,
    model_uri: str,
    flavor: str | None,
    config: Mapping[str, Any] | None,
    *,
    progress: Progress = silent,
) -> LocalDeployment:
    """Start the embedded stack if it does not run, and deploy to it.

    The model comes from the registry that MLflow is pointed at, or else from that of the stack.
    Run again, it serves the other version. The servers keep running: ``tritonpipe stack down``.

    Raises:
        StackError: A server cannot be started.
        TritonpipeError: As of a deployment.
    """
    directory = options_from_config(config).state_directory
    stack = Stack(directory)
    stack.up(progress)
    with _pointed_at(stack):
        done = deploy(name, model_uri, flavor, options_from_config(config), progress=progress)
    return LocalDeployment(
        address=stack.addresses().triton_http, name=name, version=done["version"]
    )


@contextmanager
def _pointed_at(stack: Stack) -> Iterator[None]:
    """The environment of the stack, but for the registry if there is another."""
    before = dict(os.environ)
    point_at_stack(os.environ, stack.environment_variables())
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME",
                 "MLFLOW_TRACKING_PASSWORD"):  # fmt: skip
        if name in before:
            os.environ[name] = before[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
