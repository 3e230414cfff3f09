"""Turns what was raised into MLflow's own exception, as its plugins must."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import ErrorCode

from pipeline import errors

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


class NoDeploymentError(MlflowException, ValueError):  # type: ignore[misc]
    """There is no such deployment; NVIDIA's plugin raises a ``ValueError``."""


@contextmanager
def as_mlflow() -> Iterator[None]:
    """Raise our errors as MLflow's; the message says what happened and what to do next."""
    try:
        yield
    except errors.TritonpipeError as error:
        name = type(error).__name__
        code = CODES.get(name, "INTERNAL_ERROR")
        kind = NoDeploymentError if name == "MissingError" else MlflowException
        text = f"{error.message}. To do: {error.hint}" if error.hint else error.message
        raise kind(text, error_code=ErrorCode.Value(code)) from error
