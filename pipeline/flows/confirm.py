"""Proof that the live server serves a release: golden answers over both protocols.

Readiness alone proves nothing. A release is confirmed when ordinary requests, which name no
version, are answered by the expected version with the source model's own predictions.
"""

from __future__ import annotations

import time
from typing import Final

from pipeline.artifacts import Comparison, Confirmation, Release
from pipeline.checks.parity import compare
from pipeline.errors import ConfirmationError, UnavailableError
from pipeline.model_config import config_from_text
from pipeline.samples import Array, Samples
from pipeline.triton import PROTOCOLS, Answer, Protocol, TritonClient

_POLL_SECONDS: Final = 0.05
_INDEX_SECONDS: Final = 1.0
"""The index makes Triton list the store, so it is asked less often than readiness."""

_ERROR_SECONDS: Final = 5.0
"""How long a version that says it is ready may answer with errors: clients see them, too."""

_ROUNDS: Final = 3
"""Requests per protocol; the median is the latency that is recorded."""


def await_ready(
    client: TritonClient, release: Release, *, seconds: float, known_reason: str = ""
) -> float:
    """Wait until the version can answer; returns the seconds that it took.

    Args:
        client: The server.
        release: What was committed.
        seconds: How long to wait.
        known_reason: Why this version was unavailable before the commit, in the server's words: an
            old failure that says nothing about this commit.

    Raises:
        ConfirmationError: The server refused to load it, or did not in time.
    """
    model, version = release.manifest.model, release.manifest.version
    started = time.monotonic()
    next_index = started + _INDEX_SECONDS
    while not client.is_ready(model, version):
        now = time.monotonic()
        if now - started > seconds:
            raise ConfirmationError(
                f"Triton did not serve {model}/{version} within {seconds:.0f} s of the commit"
                + (f"; it says: {known_reason}" if known_reason else ""),
                hint="check that Triton polls this repository (--model-control-mode=poll) and read "
                "its log; TRITONPIPE_CONFIRM_SECONDS sets the wait",
            )
        if now >= next_index:
            next_index = now + _INDEX_SECONDS
            reason = failure_reason(client, model, version)
            if reason and reason != known_reason:
                raise ConfirmationError(
                    f"Triton refused to load {model}/{version}: {reason}",
                    hint="the reason is the server's own; its log has more",
                )
        time.sleep(_POLL_SECONDS)
    return time.monotonic() - started


def failure_reason(client: TritonClient, model: str, version: int) -> str:
    """Why the server could not load a version; empty if it did not say so."""
    try:
        state = client.versions(model).get(version)
    except UnavailableError:
        return ""
    if state is None or state.state != "UNAVAILABLE" or state.reason == "unloaded":
        return ""
    return state.reason


def confirm(
    client: TritonClient, release: Release, golden: Samples, *, seconds: float, waited: float
) -> Confirmation:
    """Ask the live server for the golden answers over gRPC and HTTP.

    Args:
        client: The server.
        release: What should be served.
        golden: Inputs and the source model's own predictions.
        seconds: How long another version may still answer: the old one does until it is unloaded.
        waited: Seconds from the commit to readiness, for the record.

    Raises:
        ConfirmationError: Another version answers, or an answer differs; says which and how far.
    """
    is_batching = config_from_text(release.config).max_batch_size > 0
    golden = _within_batch(release, golden) if is_batching else golden
    inputs = {name: _as_served(a, is_batching=is_batching) for name, a in golden.inputs.items()}
    expected = {name: _as_served(a, is_batching=is_batching) for name, a in golden.outputs.items()}
    comparisons: list[Comparison] = []
    latency: dict[str, float] = {}
    for protocol in PROTOCOLS:
        answers = [_answer(client, release, inputs, protocol, seconds) for _ in range(_ROUNDS)]
        latency[protocol] = sorted(a.milliseconds for a in answers)[_ROUNDS // 2]
        comparisons += compare(
            f"triton {protocol}",
            expected,
            answers[-1].outputs,
            relative_tolerance=release.relative_tolerance,
            absolute_tolerance=release.absolute_tolerance,
        )
    confirmation = Confirmation(
        version=release.manifest.version,
        comparisons=tuple(comparisons),
        seconds_to_ready=waited,
        latency_milliseconds=latency,
    )
    if not confirmation.ok:
        problems = "; ".join(f"{c.subject}: {c.problem}" for c in comparisons if not c.ok)
        raise ConfirmationError(
            f"the live server answers {release.manifest.model}/{release.manifest.version} "
            f"otherwise than the source model: {problems}",
            hint="the export agreed before it was published: compare the server's version of ONNX "
            "Runtime with ours",
        )
    return confirmation


def _answer(
    client: TritonClient,
    release: Release,
    inputs: dict[str, Array],
    protocol: Protocol,
    seconds: float,
) -> Answer:
    model, version = release.manifest.model, release.manifest.version
    started = time.monotonic()
    patience = seconds
    while True:
        try:
            answer = client.infer(protocol, model, inputs)
        except UnavailableError as error:
            problem = error.message
            if client.is_ready(model, version):
                patience = min(seconds, _ERROR_SECONDS)
        else:
            if answer.version == version:
                return answer
            patience = seconds
            problem = f"version {answer.version} answers over {protocol} instead of {version}"
        if time.monotonic() - started > patience:
            raise ConfirmationError(f"{model}/{version} is not what is served: {problem}")
        time.sleep(_POLL_SECONDS)


def _within_batch(release: Release, golden: Samples) -> Samples:
    return golden.head(min(golden.rows, config_from_text(release.config).max_batch_size))


def _as_served(array: Array, *, is_batching: bool) -> Array:
    """Triton has no scalars: where a row, or the whole, is one, clients see ``[1]``."""
    if array.ndim == int(is_batching):
        return array.reshape((*array.shape, 1))
    return array
