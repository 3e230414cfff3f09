"""Proof that the live server serves a release: golden answers over both protocols.

Readiness alone proves nothing. A release is confirmed when ordinary requests, which name no
version, are answered by the expected version with the source model's own predictions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from pipeline.artifacts import Comparison, Confirmation, Release
from pipeline.checks.parity import compare
from pipeline.errors import ConfirmationError, UnavailableError
from pipeline.flows.replicas import Replicas
from pipeline.model_config import config_from_text
from pipeline.samples import Array, Samples
from pipeline.triton import PROTOCOLS, Answer, Protocol, TritonClient, VersionState

_POLL_SECONDS: Final = 0.05
_INDEX_SECONDS: Final = 1.0
"""The index makes Triton list the store, so it is asked less often than readiness."""

_UNSEEN_SECONDS: Final = 20.0
"""Without a sign of a version for so long, its commit is repeated: Triton can lose one."""

_ERROR_SECONDS: Final = 5.0
"""How long a version that says it is ready may answer with errors: clients see them, too."""

_ROUNDS: Final = 3
"""Requests per protocol; the median is the latency that is recorded."""


def await_ready(
    replicas: Replicas,
    release: Release,
    *,
    seconds: float,
    known_reasons: tuple[str, ...],
    commit_again: Callable[[], None],
) -> float:
    """Wait until the version can answer on every server; returns the seconds that it took.

    Args:
        replicas: The servers.
        release: What was committed.
        seconds: How long to wait for all of them.
        known_reasons: Why this version was unavailable before the commit, in each server's words:
            an old failure that says nothing about this commit.
        commit_again: Called when a server gives no sign that it has seen the commit.

    Raises:
        ConfirmationError: A server refused to load it, or did not in time.
    """
    started = time.monotonic()
    for client, known_reason in zip(replicas, known_reasons, strict=True):
        _await_ready(client, release, started, seconds, known_reason, commit_again)
    return time.monotonic() - started


def _await_ready(
    client: TritonClient,
    release: Release,
    started: float,
    seconds: float,
    known_reason: str,
    commit_again: Callable[[], None],
) -> None:
    model, version = release.manifest.model, release.manifest.version
    next_index = time.monotonic() + _INDEX_SECONDS
    next_commit = time.monotonic() + _UNSEEN_SECONDS
    was_ready = False
    while True:
        is_ready = client.is_ready(model, version)
        now = time.monotonic()
        is_late = now - started > seconds
        # A server that hangs takes its time for every question, and is asked no more than needed.
        if (now >= next_index and not is_late) or (is_ready and not was_ready):
            next_index = now + _INDEX_SECONDS
            versions = _versions(client, model)
            if is_ready and not _is_loading(versions, but=version):
                return
            state = versions.get(version)
            reason = _reason(state)
            if reason and reason != known_reason:
                raise ConfirmationError(
                    f"Triton at {client.http_address} refused to load {model}/{version}: {reason}",
                    hint="the reason is the server's own; its log has more",
                )
            if now >= next_commit and (state is None or state.state in {"", "UNAVAILABLE"}):
                next_commit = now + _UNSEEN_SECONDS
                commit_again()
        if is_late:
            raise _not_in_time(client, model, version, seconds, known_reason)
        was_ready = is_ready
        time.sleep(_POLL_SECONDS)


def _not_in_time(
    client: TritonClient, model: str, version: int, seconds: float, known_reason: str
) -> ConfirmationError:
    try:
        client.require_live()
    except UnavailableError as error:
        return ConfirmationError(
            f"{model}/{version} could not be confirmed within {seconds:.0f} s: {error.message}",
            hint=f"nothing is wrong with the version: {error.hint}; then run the command again",
        )
    loading = _loading_models(client) - {model}
    causes = [f"; it says: {known_reason}"] if known_reason else []
    causes += [f"; it is still loading {', '.join(sorted(loading))}"] if loading else []
    return ConfirmationError(
        f"Triton at {client.http_address} did not serve {model}/{version} within "
        f"{seconds:.0f} s of the commit" + "".join(causes),
        hint="a load holds up its polling: run the command again when that one is over"
        if loading
        else "check that Triton polls this repository (--model-control-mode=poll) and read "
        "its log; TRITONPIPE_CONFIRM_SECONDS sets the wait",
    )


def _loading_models(client: TritonClient) -> set[str]:
    try:
        index = client.all_versions()
    except UnavailableError:
        return set()
    return {model for model, versions in index.items() if _is_loading(versions)}


def _is_loading(versions: Mapping[int, VersionState], *, but: int | None = None) -> bool:
    """Whether a version is being loaded, of others than ``but``.

    A version that was served before is still ready while the server obeys an earlier commit; then
    its answers would prove nothing about what comes next.
    """
    return any(v.state == "LOADING" for number, v in versions.items() if number != but)


def is_loading(client: TritonClient, model: str) -> bool:
    """Whether a server loads a version of a model at this moment; False if it does not tell."""
    return _is_loading(_versions(client, model))


def are_settled(replicas: Replicas, model: str, version: int) -> bool:
    """Whether every server has this version ready at this moment, and is not loading another."""
    return all(
        client.is_ready(model, version) and not _is_loading(_versions(client, model), but=version)
        for client in replicas
    )


def failure_reasons(replicas: Replicas, model: str, version: int) -> tuple[str, ...]:
    """Why each server could not load a version; empty where it did not say so."""
    return tuple(_reason(_versions(client, model).get(version)) for client in replicas)


def _versions(client: TritonClient, model: str) -> dict[int, VersionState]:
    try:
        return client.versions(model)
    except UnavailableError:  # the index may be closed to us; answers and readiness are not
        return {}


def _reason(state: VersionState | None) -> str:
    if state is None or state.state != "UNAVAILABLE" or state.reason == "unloaded":
        return ""
    return state.reason


def confirm(
    replicas: Replicas,
    release: Release,
    golden: Samples,
    *,
    seconds: float,
    waited: float,
    names_version: bool = False,
) -> Confirmation:
    """Ask every live server for the golden answers over gRPC and HTTP.

    Args:
        replicas: The servers.
        release: What should be served.
        golden: Inputs and the source model's own predictions.
        seconds: How long another version may still answer: the old one does until it is unloaded.
        waited: Seconds from the commit to readiness, for the record.
        names_version: Ask for this version instead of asking as ordinary clients do.

    Raises:
        ConfirmationError: Another version answers, or an answer differs; says which and how far.
    """
    is_batching = config_from_text(release.config).max_batch_size > 0
    golden = _within_batch(release, golden) if is_batching else golden
    inputs = {name: _as_served(a, is_batching=is_batching) for name, a in golden.inputs.items()}
    expected = {name: _as_served(a, is_batching=is_batching) for name, a in golden.outputs.items()}
    comparisons: list[Comparison] = []
    latency: dict[str, float] = {}
    for client in replicas:
        where = f" at {client.http_address}" if len(replicas) > 1 else ""
        for protocol in PROTOCOLS:
            ask = partial(
                client.infer,
                protocol,
                release.manifest.model,
                inputs,
                version=release.manifest.version if names_version else None,
            )
            answers = [_answer(client, release, ask, protocol, seconds) for _ in range(_ROUNDS)]
            median = sorted(a.milliseconds for a in answers)[_ROUNDS // 2]
            latency[protocol] = max(median, latency.get(protocol, 0.0))
            comparisons += compare(
                f"triton {protocol}{where}",
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
        raise _answers_otherwise(release, comparisons)
    return confirmation


def _answers_otherwise(release: Release, comparisons: list[Comparison]) -> ConfirmationError:
    problems = "; ".join(f"{c.subject}: {c.problem}" for c in comparisons if not c.ok)
    what = f"the live server answers {release.manifest.model}/{release.manifest.version}"
    if release.manifest.lineage.is_by_hand:
        return ConfirmationError(
            f"{what} otherwise than its author says: {problems}",
            hint="correct the entry or its golden.json and publish again; a version that was never "
            "proven keeps its number",
        )
    return ConfirmationError(
        f"{what} otherwise than the source model: {problems}",
        hint="the export agreed before it was published: compare the server's version of ONNX "
        "Runtime with ours",
    )


def _answer(
    client: TritonClient,
    release: Release,
    ask: Callable[[], Answer],
    protocol: Protocol,
    seconds: float,
) -> Answer:
    model, version = release.manifest.model, release.manifest.version
    started = time.monotonic()
    patience = seconds
    while True:
        try:
            answer = ask()
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
