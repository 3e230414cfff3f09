"""What servers take over from the shell that starts them: next to nothing.

A variable of the user's shell (an AWS profile, an MLflow address, a PYTHONPATH, a proxy) must not
redirect a server, and a server must behave the same whichever shell brought it up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_KEPT: Final = frozenset(
    {
        "HOME",
        "LANG",
        "LANGUAGE",
        "LOGNAME",
        "PATH",
        "TZ",
        "USER",
        "LD_LIBRARY_PATH",  # a Python from environment modules does not start without it
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
        "NVIDIA_VISIBLE_DEVICES",
    }
)


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a server may see."""
    return {k: v for k, v in environment.items() if k in _KEPT or k.startswith("LC_")}
