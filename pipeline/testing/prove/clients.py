"""Clients that send requests the whole time and believe nothing.

Every answer is computed again from the version that claims to have given it, and that version has
to be one that may be served now. Plain HTTP with JSON, and gRPC by Triton's own client: neither
shares code with the publisher.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import tritonclient.grpc as grpc_client

from pipeline.samples import Array
from pipeline.testing.prove.entries import COLUMNS, INPUT, OUTPUT

_TIMEOUT: Final = 30.0
_WORDS_KEPT: Final = 20

_LARGEST_INPUT: Final = 100
"""Times the square of version 400 it is below 2^24, up to which FP32 has every whole number."""


class Tally:
    """What all clients saw; safe to be counted by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.words: list[str] = []

    def count(self, what: str, words: str = "") -> None:
        """One request that was ``answered``, ``failed``, ``wrong`` or ``early``."""
        with self._lock:
            self.counts[what] += 1
            if words and len(self.words) < _WORDS_KEPT:
                self.words.append(f"{what}: {words}")


class Watched:
    """What is known of a model's answers: which version gave them, and which versions may.

    Attributes:
        model: Its name.
        allowed: The versions that may answer now.
        is_expected: Whether one of them has to.
    """

    def __init__(self, model: str) -> None:
        self.model = model
        self.allowed: frozenset[int] = frozenset()
        self.is_expected = False

    def allow(self, *versions: int, is_expected: bool) -> None:
        """Which versions may answer from now on; whether one of them must."""
        self.allowed, self.is_expected = frozenset(versions), is_expected

    def version_of(self, named: int, factor: float) -> int | None:
        """The version whose answer this is; None if it is that of no version.

        Args:
            named: The version that the answer names.
            factor: By which it is larger than the question.
        """
        return named if factor == named else None


class Clients:
    """One client per protocol that ask a model from entering the context to leaving it."""

    def __init__(
        self, watched: Watched, tally: Tally, *, http: str, grpc: str, pause: float = 0.03
    ) -> None:
        self._watched = watched
        self._tally = tally
        self._pause = pause
        self._stop = threading.Event()
        senders = (_http_sender(watched.model, http), _grpc_sender(watched.model, grpc))
        self._threads = [
            threading.Thread(target=self._send, args=(sender,), daemon=True) for sender in senders
        ]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self, send: Callable[[Array], tuple[int, Array]]) -> None:
        number = 0
        while not self._stop.wait(self._pause):
            number += 1
            inputs = np.full((1, COLUMNS), number % _LARGEST_INPUT + 1, np.float32)
            allowed, is_expected = self._watched.allowed, self._watched.is_expected
            try:
                named, outputs = send(inputs)
            except Exception as error:  # noqa: BLE001  whatever a client can see is counted
                has_failed = is_expected and self._watched.is_expected
                words = f"{self._watched.model}: {error}" if has_failed else ""
                self._tally.count("failed" if has_failed else "early", words)
            else:
                # The answer to a request that began before a change may be the one from before.
                problem = self._problem(inputs, named, outputs, allowed | self._watched.allowed)
                self._tally.count("wrong" if problem else "answered", problem)

    def _problem(self, inputs: Array, named: int, outputs: Array, allowed: frozenset[int]) -> str:
        factor = float(outputs.flat[0] / inputs.flat[0])
        version = self._watched.version_of(named, factor)
        what = f"{self._watched.model}/{named} answers {outputs.tolist()} to {inputs.tolist()}"
        if version is None or not np.array_equal(outputs, inputs * np.float32(factor)):
            return what
        return "" if version in allowed else f"{what}, allowed is {sorted(allowed)}"


def _http_sender(model: str, address: str) -> Callable[[Array], tuple[int, Array]]:
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT)

    def send(inputs: Array) -> tuple[int, Array]:
        tensor = {
            "name": INPUT,
            "shape": list(inputs.shape),
            "datatype": "FP32",
            "data": inputs.ravel().tolist(),
        }
        try:
            connection.request(
                "POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]})
            )
            response = connection.getresponse()
            document = json.loads(response.read())
        except BaseException:
            connection.close()
            raise
        if response.status != 200:
            raise RuntimeError(f"HTTP {response.status} {document}")
        data = np.array(document["outputs"][0]["data"], np.float32).reshape(inputs.shape)
        return int(document["model_version"]), data

    return send


def _grpc_sender(model: str, address: str) -> Callable[[Array], tuple[int, Array]]:
    client: Any = grpc_client.InferenceServerClient(address)

    def send(inputs: Array) -> tuple[int, Array]:
        tensor = grpc_client.InferInput(INPUT, inputs.shape, "FP32")
        tensor.set_data_from_numpy(inputs)
        result = client.infer(model, [tensor], client_timeout=_TIMEOUT)
        return int(result.get_response().model_version), result.as_numpy(OUTPUT)

    return send
