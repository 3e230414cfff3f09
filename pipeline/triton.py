"""A client of one Triton server, over HTTP and gRPC.

Only per-version readiness and real answers are trusted: the server-wide readiness of Triton stays
false for ever after one failed load, and stays true after a fault of S3 has unloaded every model.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from types import TracebackType
from typing import Any, Final, Literal

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from pipeline.errors import SettingsError, UnavailableError
from pipeline.samples import Array

Protocol = Literal["http", "grpc"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("grpc", "http")
_NO_ANSWER: Final = (InferenceServerException, OSError, HTTPException)
# The clients read an answer that is not Triton's as if it were, and fail wherever it differs.
_NO_TRITON_ANSWER: Final = (ValueError, TypeError, LookupError, AttributeError, struct.error)
_CONNECTION_ERRORS: Final = (*_NO_ANSWER, *_NO_TRITON_ANSWER)
_TOO_LATE: Final = "StatusCode.DEADLINE_EXCEEDED"
_FORBIDDEN: Final = "403"
_NOT_SERVED: Final = "400"
"""What Triton answers when it is asked for the statistics of a model that it does not serve."""

_PROBE_SECONDS: Final = 10.0
"""How long a server may take to say that it is there, which is no work for it."""

_HTTP_ADDRESS: Final = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[^\s:/@?#\[\]]+)(:(?P<port>[0-9]{1,5}))?(/[!-~]*)?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionState:
    """What the server's repository index says of one version.

    Attributes:
        state: ``READY``, ``LOADING``, ``UNLOADING``, ``UNAVAILABLE`` or empty.
        reason: Why it is unavailable, in the server's words.
    """

    state: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """The answer to one request.

    Attributes:
        version: The version that answered.
        outputs: Arrays by name; strings as object arrays of ``str``.
        milliseconds: Time from sending the request to having the arrays.
    """

    version: int
    outputs: Mapping[str, Array]
    milliseconds: float


class TritonClient:
    """One server; use as a context manager.

    Raises:
        SettingsError: The HTTP address cannot be one; the server is not asked.
    """

    def __init__(self, *, http: str, grpc: str, timeout: float = 30.0) -> None:
        self.http_address = _http_address(http)
        self.grpc_address = grpc.removeprefix("grpc://").rstrip("/")
        self._timeout = timeout
        self._probe_seconds = min(timeout, _PROBE_SECONDS)
        self._http, self._probe = (
            http_client.InferenceServerClient(
                self.http_address, connection_timeout=seconds, network_timeout=seconds
            )
            for seconds in (timeout, self._probe_seconds)
        )
        self._grpc = grpc_client.InferenceServerClient(self.grpc_address)

    def __enter__(self) -> TritonClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()
        self._probe.close()
        self._grpc.close()

    def require_live(self) -> None:
        """Return if the server answers over both protocols.

        Raises:
            UnavailableError: It does not; names the address.
        """
        ask_over_grpc = partial(self._grpc.is_server_live, client_timeout=self._probe_seconds)
        for name, address, ask in (
            ("HTTP", self.http_address, self._probe.is_server_live),
            ("gRPC", self.grpc_address, ask_over_grpc),
        ):
            try:
                live = ask()
            except _CONNECTION_ERRORS as error:
                if _is_late(error):
                    raise UnavailableError(
                        f"Triton at {address} did not answer over {name} within "
                        f"{self._probe_seconds:g} s",
                        hint="it hangs, or cannot be reached: read its log, then start it again; "
                        "for the local stack: tritonpipe stack restart triton",
                    ) from error
                raise _unreachable(name, address, _described(error)) from error
            if not live:
                raise _unreachable(name, address, "what answers there is not a live Triton")

    def is_ready(self, model: str, version: int) -> bool:
        """Whether this version of this model can answer; False if the server is down."""
        try:
            return bool(self._probe.is_model_ready(model, str(version)))
        except _CONNECTION_ERRORS:
            return False

    def versions(self, model: str) -> dict[int, VersionState]:
        """The versions of one model that the server knows of, with their states.

        A server in explicit mode keeps its index for whoever drives it: then only the versions that
        are ready are known, from its statistics.

        Raises:
            UnavailableError: The server does not answer.
        """
        try:
            return self.all_versions().get(model, {})
        except UnavailableError as error:
            if _status(error.__cause__) != _FORBIDDEN:
                raise
        return self._ready_versions(model)

    def all_versions(self) -> dict[str, dict[int, VersionState]]:
        """The versions of all models that the server knows of, with one request.

        Raises:
            UnavailableError: The server gives no repository index.
        """
        found: dict[str, dict[int, VersionState]] = {}
        try:
            for entry in self._http.get_model_repository_index():
                versions = found.setdefault(entry["name"], {})
                if entry.get("version", "").isdigit():
                    versions[int(entry["version"])] = VersionState(
                        state=entry.get("state", ""), reason=entry.get("reason", "")
                    )
        except _CONNECTION_ERRORS as error:
            raise _unreachable("HTTP", self.http_address, _described(error)) from error
        return found

    def _ready_versions(self, model: str) -> dict[int, VersionState]:
        try:
            statistics = self._http.get_inference_statistics(model)
            return {
                int(entry["version"]): VersionState(state="READY", reason="")
                for entry in statistics["model_stats"]
            }
        except _CONNECTION_ERRORS as error:
            if _status(error) == _NOT_SERVED:
                return {}
            raise _unreachable("HTTP", self.http_address, _described(error)) from error

    def steps(self, model: str) -> tuple[tuple[str, int], ...]:
        """Model and version of each step of an ensemble, as the server has loaded it.

        Raises:
            UnavailableError: The server does not answer, or does not serve the model.
        """
        try:
            config = self._grpc.get_model_config(model, client_timeout=self._timeout).config
        except _CONNECTION_ERRORS as error:
            raise UnavailableError(
                f"Triton at {self.grpc_address} gives no config of {model}: {_described(error)}"
            ) from error
        steps = config.ensemble_scheduling.step
        return tuple((step.model_name, int(step.model_version)) for step in steps)

    def config(self, model: str) -> Any:
        """The config of a model as the server has loaded it, as a document; over HTTP.

        Raises:
            UnavailableError: The server does not answer, or does not serve the model.
        """
        try:
            return self._http.get_model_config(model)
        except _CONNECTION_ERRORS as error:
            raise UnavailableError(
                f"Triton at {self.http_address} gives no config of {model}: {_described(error)}",
                hint="see what is served: tritonpipe status",
            ) from error

    def infer(
        self,
        protocol: Protocol,
        model: str,
        inputs: Mapping[str, Array],
        *,
        version: int | None = None,
    ) -> Answer:
        """Send one request; by default without naming a version, as ordinary clients do.

        Raises:
            UnavailableError: No answer, an error as answer, or one that cannot be read.
        """
        client, module = (
            (self._grpc, grpc_client) if protocol == "grpc" else (self._http, http_client)
        )
        limits = {"client_timeout": self._timeout} if protocol == "grpc" else {}
        tensors = [_request_tensor(module, name, array) for name, array in inputs.items()]
        started = time.perf_counter()
        try:
            result = client.infer(model, tensors, "" if version is None else str(version), **limits)
            answered, outputs = _read(result, protocol)
        except _CONNECTION_ERRORS as error:
            raise UnavailableError(
                f"{model} gave no answer over {protocol}: {_described(error)}"
            ) from error
        milliseconds = (time.perf_counter() - started) * 1000
        return Answer(version=answered, outputs=outputs, milliseconds=milliseconds)


def _request_tensor(module: Any, name: str, array: Array) -> Any:
    tensor = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    tensor.set_data_from_numpy(np.ascontiguousarray(array))
    return tensor


def _read(result: Any, protocol: Protocol) -> tuple[int, dict[str, Array]]:
    response = result.get_response()
    if protocol == "grpc":
        names = [output.name for output in response.outputs]
        version = response.model_version
    else:
        names = [output["name"] for output in response["outputs"]]
        version = response["model_version"]
    return int(version), {name: _decoded(result.as_numpy(name)) for name in names}


def _decoded(array: Array) -> Array:
    if array.dtype != np.object_:
        return array
    texts = [item.decode() for item in array.ravel()]
    return np.array(texts, dtype=np.object_).reshape(array.shape)


def _http_address(text: str) -> str:
    """``HOST:PORT``; checked here because the client only trips over it later, if at all."""
    address = text.removeprefix("http://").rstrip("/")
    match = _HTTP_ADDRESS.fullmatch(address)
    if match is None or int(match["port"] or 80) not in range(1, 65536):
        raise SettingsError(
            f"{text!r} is not the HTTP address of a Triton server",
            hint="set TRITONPIPE_TRITON_HTTP to HOST:PORT, without TLS, such as 127.0.0.1:8000",
        )
    return address


def _is_late(error: Exception) -> bool:
    return isinstance(error, TimeoutError) or _status(error) == _TOO_LATE


def _described(error: Exception) -> str:
    if isinstance(error, _NO_TRITON_ANSWER):
        return f"its answer cannot be read ({type(error).__name__}: {error})"
    return str(error) or type(error).__name__


def _status(error: BaseException | None) -> str:
    """The HTTP status that a client's error carries; empty if it has none."""
    return str(error.status() or "") if isinstance(error, InferenceServerException) else ""


def _unreachable(protocol: str, address: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"Triton does not answer over {protocol} at {address}: {why}",
        hint="start it, or correct TRITONPIPE_TRITON_HTTP and TRITONPIPE_TRITON_GRPC; for the "
        'local stack: tritonpipe stack up, then again eval "$(tritonpipe stack env)"',
    )
