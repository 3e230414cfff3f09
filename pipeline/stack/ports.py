"""Which ports the servers get: the documented ones where they are free, and then always the same.

Everything listens on 127.0.0.1 only.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

from pipeline.errors import SettingsError

LOOPBACK: Final = "127.0.0.1"

_FALLBACKS: Final = range(20000, 32768)
"""Below the ports that Linux gives to clients: a server binds its port seconds after it was chosen,
and a client's connection could take it meanwhile."""


PORTS_OF: Final = {
    "s3": ("s3",),
    "mlflow": ("mlflow",),
    "mirror": ("mirror_metrics",),
    "triton": ("triton_http", "triton_grpc", "triton_metrics"),
}
"""The ports of each part, by field of :class:`Ports`; the first one is where people look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports of a stack; the defaults are those that the servers' own manuals use.

    The mirror's has the number after Triton's.
    """

    mlflow: int = 5000
    s3: int = 9000
    triton_http: int = 8000
    triton_grpc: int = 8001
    triton_metrics: int = 8002
    mirror_metrics: int = 8003


def choose_ports(
    remembered: Ports,
    *,
    wanted: Mapping[str, int],
    in_use_by_us: Collection[str],
    is_free: Callable[[int], bool],
    free_ports: Iterator[int],
) -> tuple[Ports, tuple[str, ...]]:
    """Choose a port for every server.

    Args:
        remembered: The ports of last time, or the defaults.
        wanted: Ports that the user asked for, by field of :class:`Ports`; 0 means any free one.
        in_use_by_us: Fields whose server runs already and keeps its port.
        is_free: Whether a port can be bound now.
        free_ports: Ports that can be bound now, to fall back to.

    Returns:
        The ports, and a sentence for each that is not the remembered one although not asked for.

    Raises:
        SettingsError: A port that the user asked for is taken.
    """
    chosen: dict[str, int] = {}
    notices = []
    for name, usual in asdict(remembered).items():
        asked = wanted.get(name)
        if name in in_use_by_us:
            if asked not in {None, 0, usual}:
                raise SettingsError(
                    f"{_words(name)} already runs on port {usual}, not on {asked}",
                    hint='stop it first with "tritonpipe stack down"',
                )
            port = usual
        elif asked == 0:
            port = _next_free(free_ports, chosen)
        elif asked is not None:
            if not is_free(asked) or asked in chosen.values():
                raise SettingsError(
                    f"port {asked}, asked for {_words(name)}, is taken",
                    hint=f"choose another --{name.replace('_', '-')}-port, or leave it out",
                )
            port = asked
        elif is_free(usual) and usual not in chosen.values():
            port = usual
        else:
            port = _next_free(free_ports, chosen)
            notices.append(f"port {usual} is taken by another program: {_words(name)} gets {port}")
        chosen[name] = port
    return Ports(**chosen), tuple(notices)


def is_free(port: int) -> bool:
    """Whether nobody listens on the port, on loopback or on all addresses."""
    with socket.socket() as attempt:
        # As the servers do: connections of a server that has just stopped must not count.
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports() -> Iterator[int]:
    """Ports that nobody listens on, in random order, without end."""
    while True:
        port = secrets.choice(_FALLBACKS)
        if is_free(port):
            yield port


def _next_free(candidates: Iterator[int], chosen: Mapping[str, int]) -> int:
    return next(port for port in candidates if port not in chosen.values())


def _words(name: str) -> str:
    server, _, use = name.partition("_")
    words = {"mlflow": "MLflow", "s3": "S3", "triton": "Triton", "mirror": "the mirror"}[server]
    return f"{words} ({use})" if use else words
