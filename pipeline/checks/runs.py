"""Runs a graph in batches of one size and compares what comes out with what was predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from pipeline.checks.cases import Cases
from pipeline.checks.parity import Compared, compare_outputs, failed
from pipeline.checks.tolerances import Tolerances
from pipeline.samples import Array, Samples

_LONGEST: Final = 400
"""Letters of an error of ONNX Runtime that are told."""


class SessionError(Exception):
    """A run failed, and the message says itself what cannot be run."""


class Session(Protocol):
    """What computes the outputs of a graph, or of what else is served."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Compute all outputs; raises whatever it likes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """Inputs and predictions that belong together.

    Attributes:
        samples: The arrays.
        origin: Where they come from, in words.
    """

    samples: Samples
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ran:
    """One output of a run.

    Attributes:
        compared: What came of it.
        rows: Which row of the inputs each compared row is.
        size: Batch size; 0 where there are no batches.
        inputs: On what.
    """

    compared: Compared
    rows: Array
    size: int
    inputs: Inputs


def run_batches(
    session: Session,
    inputs: Inputs,
    parts: Sequence[Array],
    tolerances: Tolerances,
    cases: Cases,
) -> list[Ran]:
    """Run every batch and compare them together; the first that cannot be joined, alone."""
    size = len(parts[0])
    subject = f"{subject_of(session)}, batch {size}"
    answers: list[dict[str, Array]] = []
    for rows in parts:
        part = inputs.samples.take(rows)
        try:
            answers.append(session.run(part.inputs))
        except Exception as error:  # noqa: BLE001  ONNX Runtime's errors have no common base
            compared = failed(subject, inputs.origin, cannot_run(error))
            ran = Ran(compared=compared, rows=rows, size=size, inputs=inputs)
            return [kept(ran, {}, tolerances, cases)]
        if _shapes(answers[-1]) != _shapes(part.outputs):
            parts, answers = [rows], [answers[-1]]
            break
    rows = np.concatenate(parts)
    found = {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}
    expected = inputs.samples.take(rows).outputs
    compared_outputs = compare_outputs(
        subject, inputs.origin, expected, found, tolerances, numbers=rows
    )
    runs = [Ran(compared=one, rows=rows, size=size, inputs=inputs) for one in compared_outputs]
    return [kept(ran, found, tolerances, cases, batch=size) for ran in runs]


def run_whole(session: Session, inputs: Inputs, tolerances: Tolerances, cases: Cases) -> list[Ran]:
    """Run a graph that takes no batches, as the inputs are."""
    samples = inputs.samples
    rows = np.arange(samples.rows)
    try:
        found = session.run(samples.inputs)
    except Exception as error:  # noqa: BLE001  as above
        compared = [failed(subject_of(session), inputs.origin, cannot_run(error))]
        found = {}
    else:
        compared = compare_outputs(
            subject_of(session), inputs.origin, samples.outputs, found, tolerances
        )
    runs = [Ran(compared=one, rows=rows, size=0, inputs=inputs) for one in compared]
    return [kept(ran, found, tolerances, cases) for ran in runs]


def kept(
    ran: Ran, found: Mapping[str, Array], tolerances: Tolerances, cases: Cases, batch: int = 0
) -> Ran:
    """With the batch of its first failing row in a file, if it failed."""
    if not ran.compared.comparison.problem:
        return ran
    wrong = np.flatnonzero(ran.compared.wrong)
    start = int(wrong[0]) // batch * batch if batch and wrong.size else 0
    place = slice(start, start + batch if batch else None)
    part = ran.inputs.samples.take(ran.rows[place]) if batch else ran.inputs.samples
    if not batch and ran.size:
        part = ran.inputs.samples.take(ran.rows)
    answers = {name: array[place] if batch else array for name, array in found.items()}
    name = cases.keep(
        part.inputs,
        part.outputs,
        answers,
        output=ran.compared.comparison.output,
        question=ran.compared.comparison.question,
        tolerances={n: tolerances.of(str(array.dtype)) for n, array in part.outputs.items()},
    )
    return named(ran, name)


def named(ran: Ran, case: str) -> Ran:
    """With the name of the file that reproduces it."""
    comparison = replace(ran.compared.comparison, case=case)
    return replace(ran, compared=replace(ran.compared, comparison=comparison))


def _shapes(arrays: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


def subject_of(session: Session) -> str:
    """What a report calls it."""
    return str(getattr(session, "subject", "onnx"))


def cannot_run(error: Exception) -> str:
    """Its error on one line."""
    if isinstance(error, SessionError):
        return " ".join(str(error).split())[:_LONGEST]
    return f"ONNX Runtime cannot run it: {' '.join(str(error).split())[:_LONGEST]}"
