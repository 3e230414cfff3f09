"""The environment of a process that runs a model's code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

_PASSED_ON: Final = (
    "PATH",
    "PYTHONPATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)
_CODE_SWITCHES: Final = (
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION",
    "MLFLOW_ALLOW_MODEL_CODE_EXECUTION",  # since MLflow 3.18
)
_SET: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # ONNX Runtime 1.29 and newer: otherwise a thread and a file in the home for each child.
    "ORT_DISABLE_TELEMETRY": "1",
    # The discard port: whatever asks for a server finds none.
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "PYTHONUNBUFFERED": "1",
    "PYTHONHASHSEED": "0",
}


def common_environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What every child sees: an allow-list, because nobody can list all names of secrets."""
    return {**{name: ours[name] for name in _PASSED_ON if name in ours}, **_SET}


def child_environment(
    ours: Mapping[str, str], home: Path, *, is_code_allowed: bool
) -> dict[str, str]:
    """What one child sees.

    Args:
        ours: The environment of this process.
        home: A folder of its own, for its home and its temporary files.
        is_code_allowed: Whether reading the model may run code of its author.
    """
    switches = dict.fromkeys(_CODE_SWITCHES, "true" if is_code_allowed else "false")
    return {**common_environment(ours), **switches, "HOME": str(home), "TMPDIR": str(home)}
