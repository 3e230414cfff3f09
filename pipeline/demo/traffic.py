"""What an application does: send requests with plain tritonclient code, and believe nothing.

Every answer is compared with what the model of the answering version itself predicted, so a mixture
of two versions, or a half-loaded one, is counted as wrong.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from pipeline.samples import Array

_TOLERANCE: Final = 1e-4


@dataclass(slots=True, kw_only=True)
class Tally:
    """What the clients saw.

    Attributes:
        sent: Requests sent.
        failed: Requests that gave an error.
        wrong: Answers that differ from what the answering version's model predicted.
        versions: Answers by version.
        longest_gap: Longest time without any answer, in seconds.
        errors: The first few errors, in words.
    """

    sent: int = 0
    failed: int = 0
    wrong: int = 0
    versions: Counter[int] = field(default_factory=Counter)
    longest_gap: float = 0.0
    errors: list[str] = field(default_factory=list)


class Traffic:
    """Clients that send one request after the other, over gRPC and HTTP, while the body runs."""

    def __init__(
        self,
        model: str,
        inputs: Mapping[str, Array],
        expected: Mapping[int, Mapping[str, Array]],
        *,
        http: str,
        grpc: str,
        clients: int = 2,
        pause: float = 0.005,
    ) -> None:
        self.tally = Tally()
        self._model, self._inputs, self._expected = model, inputs, expected
        self._addresses = {"http": http, "grpc": grpc}
        self._pause = pause
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._last_answer = time.monotonic()
        protocols = ["grpc", "http"] * clients
        self._threads = [threading.Thread(target=self._send, args=(p,)) for p in protocols]

    def __enter__(self) -> Traffic:
        self._last_answer = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, protocol: str) -> None:
        module: Any = grpc_client if protocol == "grpc" else http_client
        client = module.InferenceServerClient(self._addresses[protocol])
        tensors = request_tensors(module, self._inputs)
        while not self._stop.is_set():
            try:
                result = client.infer(self._model, tensors)
            except Exception as error:  # noqa: BLE001  whatever a client can see is counted
                self._count_failure(f"{protocol}: {error}")
            else:
                self._count_answer(result, protocol)
            time.sleep(self._pause)
        client.close()

    def _count_failure(self, text: str) -> None:
        with self._lock:
            self.tally.sent += 1
            self.tally.failed += 1
            if len(self.tally.errors) < 3:
                self.tally.errors.append(text)

    def _count_answer(self, result: Any, protocol: str) -> None:
        response = result.get_response()
        version = int(response.model_version if protocol == "grpc" else response["model_version"])
        expected = self._expected.get(version)
        is_right = expected is not None and all(
            agrees(result.as_numpy(name), array) for name, array in expected.items()
        )
        with self._lock:
            now = time.monotonic()
            self.tally.longest_gap = max(self.tally.longest_gap, now - self._last_answer)
            self._last_answer = now
            self.tally.sent += 1
            self.tally.versions[version] += 1
            self.tally.wrong += not is_right


def request_tensors(module: Any, inputs: Mapping[str, Array]) -> list[Any]:
    """The request as any Triton client writes it."""
    tensors = []
    for name, array in inputs.items():
        kind = "BYTES" if array.dtype == np.object_ else "FP32"
        tensor = module.InferInput(name, array.shape, kind)
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def agrees(answer: Array, expected: Array) -> bool:
    """Whether an answer is what the model itself predicted."""
    if answer.size != expected.size:
        return False
    if np.issubdtype(expected.dtype, np.floating):
        return bool(np.allclose(answer.ravel(), expected.ravel(), rtol=1e-3, atol=_TOLERANCE))
    return bool((answer.ravel() == expected.ravel()).all())
