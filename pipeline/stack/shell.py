"""Points clients at a stack: those of a shell, by lines to evaluate, or those of this process."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, MutableMapping
from typing import Final

from pipeline.stack import environment, state
from pipeline.stack.ports import LOOPBACK

CONFLICTING: Final = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL_S3",
    "MLFLOW_REGISTRY_URI",
)
"""With these of another account or server, clients would ask elsewhere or be refused."""

_OF_CLIENTS: Final = ("AWS_", "MLFLOW_", "TRITONPIPE_")
_OF_THE_STACK: Final = frozenset({environment.VARIABLE, state.VARIABLE})
_NO_PROXY: Final = ("NO_PROXY", "no_proxy")
_LOCAL: Final = (LOOPBACK, "localhost")


def shell_lines(variables: Mapping[str, str]) -> tuple[str, ...]:
    """Lines for ``eval`` in any POSIX shell; values are quoted where they need it."""
    exports = (f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    return (f"unset {' '.join(CONFLICTING)}", *exports)


def without_proxy(ours: Mapping[str, str]) -> dict[str, str]:
    """``NO_PROXY`` and ``no_proxy`` with loopback added to what ``ours`` has.

    Otherwise the clients of a user behind a proxy would look for the stack beyond it. Programs
    differ in which of the two they read.
    """
    upper, lower = (ours.get(name, "") for name in _NO_PROXY)
    values = (upper or lower, lower or upper)
    return {name: _with_local(value) for name, value in zip(_NO_PROXY, values, strict=True)}


def point_at_stack(process: MutableMapping[str, str], variables: Mapping[str, str]) -> None:
    """Let the clients of a process find this stack, and nothing else.

    Args:
        process: Its environment, such as ``os.environ``. Every other variable of AWS, MLflow or
            this package is removed: it is about other servers, or tunes how models are served.
        variables: What :meth:`pipeline.stack.Stack.environment_variables` gave.
    """
    for name in list(process):
        if name.startswith(_OF_CLIENTS) and name not in _OF_THE_STACK:
            del process[name]
    process.update(variables)
    process.update(without_proxy(process))


def _with_local(value: str) -> str:
    hosts = [host.strip() for host in value.split(",") if host.strip()]
    if hosts == ["*"]:  # no proxy at all; in a list, some programs take it for a name
        return "*"
    return ",".join((*hosts, *(host for host in _LOCAL if host not in hosts)))
