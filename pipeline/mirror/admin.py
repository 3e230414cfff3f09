"""The part of Triton that loads and unloads models, and the key that opens it.

Over gRPC: a load that is asked for over HTTP occupies one of the few threads that answer HTTP
clients until it is over, and every client whose connection that thread serves waits as long. (With
a load of 8 seconds, 8 of 16 HTTP clients had no answer for 8 seconds; over gRPC nobody noticed.)

A Triton that others can reach keeps this part for its mirror: started with
``--grpc-restricted-protocol=model-repository:NAME=VALUE`` (and the same for HTTP), it refuses
everybody who does not send the header. The pair is read from a file, and no error, log or command
line of the mirror has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import tritonclient.grpc as grpc_client
from tritonclient.utils import InferenceServerException

from pipeline.errors import RefusedError, SettingsError, UnavailableError

_PAIR: Final = re.compile(r"(?P<name>[0-9a-z-]+)=(?P<value>[!-~]+)")
_ADDRESS: Final = re.compile(r"([^\s:/@?#\[\]]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
_HEADER: Final = "triton-grpc-protocol-"
_INDEX_SECONDS: Final = 10.0
_LOAD_SECONDS: Final = 1800.0
"""A load answers when it is over; large engines take minutes."""

_CHANNEL: Final = (
    ("grpc.max_receive_message_length", -1),
    # A Triton that was restarted must be found at once, not when a growing wait is over.
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminKey:
    """The header that opens the restricted part: its name, as Triton's flags have it, and value."""

    name: str
    value: str = field(repr=False)


def admin_key_from_file(path: Path) -> AdminKey:
    """Read ``NAME=VALUE``, as Triton's flags have it after the colon.

    Raises:
        SettingsError: The file cannot be read or holds something else, which is not repeated.
    """
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the admin key {path}: {type(error).__name__}") from error
    match = _PAIR.fullmatch(text)
    if match is None:
        raise SettingsError(
            f"{path} does not hold an admin key",
            hint="it holds NAME=VALUE, the name in lower case, as in "
            "--grpc-restricted-protocol=model-repository:NAME=VALUE",
        )
    return AdminKey(name=match["name"], value=match["value"])


class TritonAdmin:
    """Loads and unloads models of one Triton in explicit mode; used by several threads."""

    def __init__(self, address: str, key: AdminKey | None) -> None:
        """Note where it is; it is not asked yet.

        Raises:
            SettingsError: This is no address.
        """
        match = _ADDRESS.fullmatch(address)
        if match is None or int(match["port"]) not in range(1, 65536):
            raise SettingsError(
                f"{address!r} is not the gRPC address of a Triton server",
                hint="give --triton HOST:PORT, such as 127.0.0.1:8001",
            )
        self._address = address
        self._headers = {} if key is None else {_HEADER + key.name: key.value}
        self._client = grpc_client.InferenceServerClient(address, channel_args=list(_CHANNEL))

    def index(self) -> dict[str, dict[int, str]]:
        """The state of every version that the server knows of, by model.

        Raises:
            UnavailableError: It does not answer.
            SettingsError: It refuses the key.
        """
        answer = self._ask(self._client.get_model_repository_index, _INDEX_SECONDS)
        found: dict[str, dict[int, str]] = {}
        for entry in answer.models:
            versions = found.setdefault(entry.name, {})
            if entry.version.isdigit():
                versions[int(entry.version)] = entry.state
        return found

    def load(self, model: str) -> None:
        """Load what the config of a model names; returns when it is served.

        Raises:
            RefusedError: Triton cannot load it; what it served before it still serves.
            UnavailableError: It does not answer.
            SettingsError: It refuses the key.
        """
        self._ask(self._client.load_model, _LOAD_SECONDS, model)

    def unload(self, model: str) -> None:
        """Begin to unload all versions of a model; the errors are those of :meth:`load`."""
        self._ask(self._client.unload_model, _LOAD_SECONDS, model)

    def _ask(self, call: Any, seconds: float, *arguments: str) -> Any:
        try:
            return call(*arguments, headers=self._headers, client_timeout=seconds)
        except InferenceServerException as error:
            raise self._translated(error) from error

    def _translated(self, error: InferenceServerException) -> Exception:
        text, status = str(error.message()).split("\n\n")[0], str(error.status())
        if "protocol is restricted" in text:
            return SettingsError(
                f"Triton at {self._address} keeps its model-repository protocol closed",
                hint="give the mirror the key that Triton was started with: --admin-key-file",
            )
        # A connection that breaks during a load says CANCELLED or UNKNOWN.
        if status.rpartition(".")[2] in {"INVALID_ARGUMENT", "INTERNAL", "NOT_FOUND"}:
            return RefusedError(text)
        return UnavailableError(
            f"Triton does not answer over gRPC at {self._address}: {status.rpartition('.')[2]}",
            hint="start it, or correct --triton",
        )
