"""Every Triton that serves the repository: a release is proven on all of them or not at all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeAlias

from pipeline.errors import SettingsError, UnavailableError
from pipeline.settings import Settings
from pipeline.triton import TritonClient

Replicas: TypeAlias = tuple[TritonClient, ...]


@contextmanager
def open_replicas(settings: Settings) -> Iterator[Replicas]:
    """A client for each server; nothing is asked yet.

    Raises:
        SettingsError: An address cannot be one, or HTTP and gRPC do not name the same servers.
        UnavailableError: A name cannot be resolved.
    """
    http = _resolved(settings.triton_http)
    grpc = _resolved(settings.triton_grpc)
    if len(http) != len(grpc):
        raise SettingsError(
            f"there are {len(http)} HTTP addresses of Triton and {len(grpc)} gRPC addresses",
            hint="TRITONPIPE_TRITON_HTTP and TRITONPIPE_TRITON_GRPC must name the same servers in "
            "the same order",
        )
    with ExitStack() as stack:
        yield tuple(
            stack.enter_context(TritonClient(http=h, grpc=g))
            for h, g in zip(http, grpc, strict=True)
        )


def require_live(replicas: Replicas) -> None:
    """Return if every server answers over both protocols.

    Raises:
        UnavailableError: One does not; names its address.
    """
    for replica in replicas:
        replica.require_live()


def _resolved(setting: str) -> list[str]:
    """All addresses behind ``HOST:PORT,HOST:PORT``; a host with one address keeps its name."""
    return [each for part in setting.split(",") if part.strip() for each in _expanded(part.strip())]


def _expanded(address: str) -> list[str]:
    scheme, _, rest = address.rpartition("://")
    host, colon, port = rest.rpartition(":")
    if not colon or host.startswith("[") or "/" in host:
        return [address]
    addresses = _addresses_of(host)
    if len(addresses) < 2:
        return [address]
    prefix = f"{scheme}://" if scheme else ""
    return [f"{prefix}{each}:{port}" for each in addresses]


def _addresses_of(host: str) -> list[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnavailableError(
            f"the name {host!r} of a Triton server cannot be resolved: {error}",
            hint="correct TRITONPIPE_TRITON_HTTP and TRITONPIPE_TRITON_GRPC",
        ) from error
    # A server that listens on both families, as localhost does, is one server.
    version_4 = sorted({str(info[4][0]) for info in found if info[0] == socket.AF_INET})
    if version_4:
        return version_4
    return [f"[{each}]" for each in sorted({str(info[4][0]) for info in found})]
