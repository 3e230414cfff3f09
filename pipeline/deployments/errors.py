"""Turns what was raised into MLflow's own exception, as its plugins must."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from pipeline.errors import TritonpipeError

CODES: Final = {
    "ExistsError": "RESOURCE_ALREADY_EXISTS",
    "MissingError": "RESOURCE_DOES_NOT_EXIST",
    "RequestError": "INVALID_PARAMETER_VALUE",
    "SettingsError": "INVALID_STATE",
    "DependencyError": "FEATURE_DISABLED",
    "ModelError": "BAD_REQUEST",
    "RefusedError": "BAD_REQUEST",
    "UnavailableError": "TEMPORARILY_UNAVAILABLE",
    "ConflictError": "RESOURCE_CONFLICT",
    "ConfirmationError": "ABORTED",
}
"""MLflow's code for each of our errors; ``INTERNAL_ERROR`` for any other."""


class DeploymentError(MlflowException, click.ClickException):  # type: ignore[misc]  # no types
    """What happened, and what to do next; MLflow's command prints it without a traceback."""

    def __init__(self, message: str, code: str = "INTERNAL_ERROR") -> None:
        MlflowException.__init__(self, message, error_code=ErrorCode.Value(code))


class NoDeploymentError(DeploymentError, ValueError):
    """There is no such deployment; NVIDIA's plugin raises a ``ValueError``."""


@contextmanager
def as_mlflow() -> Iterator[None]:
    """Raise our errors as MLflow's; the original is the cause."""
    try:
        yield
    except TritonpipeError as error:
        name = type(error).__name__
        kind = NoDeploymentError if name == "MissingError" else DeploymentError
        text = f"{error.message}\nhint: {error.hint}" if error.hint else error.message
        raise kind(text, CODES.get(name, "INTERNAL_ERROR")) from error


def unsupported() -> DeploymentError:
    """What is no part of this target."""
    return DeploymentError(
        "the target tritonpipe has deployments and their predictions, no endpoints, streams or "
        "explanations: a deployment is one model on every Triton server",
        "NOT_IMPLEMENTED",
    )


def invalid(message: str) -> DeploymentError:
    """A call that cannot be meant so."""
    return DeploymentError(message, "INVALID_PARAMETER_VALUE")
