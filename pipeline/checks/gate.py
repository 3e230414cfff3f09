"""What an export must pass: it is compared with its source wherever it could be asked.

Guarantees: every row is compared at the largest batch that the server forms, and a few of every
input at one, two and an odd number of rows; at every length that the source takes; a row alone and
among others. What is not compared is told. Findings are values, never exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.artifacts import Export, OnnxModel, Preprocessing
from pipeline.checks.batches import batch_sizes, batches
from pipeline.checks.cases import Cases
from pipeline.checks.error_samples import merged
from pipeline.checks.neighbours import run_neighbours
from pipeline.checks.parity import failed
from pipeline.checks.runs import Inputs, Ran, Session, run_batches, run_whole, subject_of
from pipeline.checks.texts import TextModel
from pipeline.checks.tolerances import Tolerances
from pipeline.onnx_graph import OnnxSession
from pipeline.reports import Comparison, ErrorSample, Question, Report
from pipeline.samples import load_samples
from pipeline.tensors import ServedTensors

LARGEST_BATCH: Final = 64
"""Unless somebody says how large a batch the server forms."""


def check_export(
    export: Export,
    *,
    tolerances: Tolerances | None = None,
    max_batch_size: int = LARGEST_BATCH,
    cases: Path | None = None,
) -> Report:
    """Check what was exported on everything that its source was asked; see :func:`check_onnx`."""
    golden = Inputs(samples=load_samples(export.samples), origin=export.samples_origin)
    probes = [Inputs(samples=load_samples(p.samples), origin=p.origin) for p in export.probes]
    report = check_onnx(
        export.onnx,
        [golden, *probes],
        tolerances=tolerances,
        max_batch_size=max_batch_size,
        left_out=export.left_out,
        cases=cases,
        preprocessing=export.preprocessing,
    )
    if not export.recorded:
        return report
    return replace(report, samples_origin=f"{report.samples_origin} and {export.recorded}")


def check_onnx(
    onnx: OnnxModel,
    inputs: Sequence[Inputs],
    *,
    tolerances: Tolerances | None = None,
    max_batch_size: int = LARGEST_BATCH,
    left_out: Iterable[str] = (),
    cases: Path | None = None,
    preprocessing: Preprocessing | None = None,
) -> Report:
    """Run an exported model in ONNX Runtime and compare with its source.

    Args:
        onnx: The exported model.
        inputs: The golden samples first, then everything else that the source was asked.
        tolerances: How far answers may be away; None for the defaults.
        max_batch_size: The largest batch that the server forms.
        left_out: What the source could not be asked, for the report.
        cases: Where to write what failed; None for nowhere.
        preprocessing: The step in front of the model, if there is one.
    """
    tolerances = tolerances or Tolerances()
    kept = Cases(cases)
    ran = list(_run(onnx, preprocessing, inputs, tolerances, max_batch_size, kept))
    return report_of(
        onnx, inputs, ran, tolerances=tolerances, max_batch_size=max_batch_size, left_out=left_out
    )


def report_of(
    served: ServedTensors,
    inputs: Sequence[Inputs],
    ran: Sequence[Ran],
    *,
    tolerances: Tolerances,
    max_batch_size: int,
    left_out: Iterable[str],
) -> Report:
    """What came of all runs, whatever was run."""
    told = list(left_out)
    if served.is_batching and max_batch_size > 1 and not any(i.samples.rows > 1 for i in inputs):
        told.append("one row only: nothing shows that rows do not depend on each other")
    widest = [tolerances.of(spec.data_type.numpy) for spec in served.outputs]
    comparisons = [one.compared.comparison for one in _forgiven(ran, tolerances)]
    return Report(
        comparisons=tuple(comparisons),
        samples_origin=inputs[0].origin,
        relative_tolerance=max(tolerance.relative for tolerance in widest),
        absolute_tolerance=max(tolerance.absolute for tolerance in widest),
        allowed_row_fraction=tolerances.allowed_row_fraction,
        left_out=tuple(told),
        errors=_errors(ran),
    )


def _errors(ran: Sequence[Ran]) -> tuple[ErrorSample, ...]:
    """Of the runs that see every row."""
    everything = max((one.size for one in ran), default=0)
    return merged(
        one.compared.errors
        for one in ran
        if one.size == everything and one.compared.errors is not None
    )


def _run(
    onnx: OnnxModel,
    preprocessing: Preprocessing | None,
    inputs: Sequence[Inputs],
    tolerances: Tolerances,
    largest: int,
    cases: Cases,
) -> Iterable[Ran]:
    try:
        if preprocessing is None:
            session: Session = OnnxSession(onnx.file, is_optimised=True)
        else:
            text_model = TextModel(preprocessing, onnx)
    except Exception as error:  # noqa: BLE001  ONNX Runtime's errors have no common base
        told = failed("onnx", "", f"ONNX Runtime cannot load it: {error}")
        yield Ran(compared=told, rows=np.zeros(0, int), size=0, inputs=inputs[0])
        return
    for part in inputs:
        size = largest
        if preprocessing is not None:
            session = text_model.session(part)
            size = text_model.largest_batch(part, largest)
        yield from run_part(session, onnx, part, size, tolerances, cases)


def run_part(
    session: Session,
    served: ServedTensors,
    part: Inputs,
    largest: int,
    tolerances: Tolerances,
    cases: Cases,
) -> Iterable[Ran]:
    """Everything that is run on some inputs."""
    if not part.samples.rows or not part.samples.outputs:
        told = failed(subject_of(session), part.origin, "there is nothing to compare")
        yield Ran(compared=told, rows=np.zeros(0, int), size=0, inputs=part)
        return
    if not served.is_batching:
        yield from run_whole(session, part, tolerances, cases)
        return
    for size in batch_sizes(largest):
        together = batches(part.samples.rows, size, largest=largest)
        yield from run_batches(session, part, together, tolerances, cases)
    if part.samples.rows > 1 and largest > 1:
        yield from run_neighbours(
            session, part, largest=largest, tolerances=tolerances, cases=cases
        )


def _forgiven(ran: Sequence[Ran], tolerances: Tolerances) -> list[Ran]:
    """Without the problems of rows that are few enough.

    They are counted over all inputs of an output in the runs that see every row. In those that see
    a few, only rows count that agree in the others: then the size of the batch is at fault.
    """
    if not tolerances.allowed_row_fraction:
        return list(ran)
    everything = max((one.size for one in ran), default=0)
    allowed: set[tuple[str, int]] = set()
    for output in {one.compared.comparison.output for one in ran}:
        of_output = [one for one in ran if one.compared.comparison.output == output]
        by_size = {
            size: [one for one in of_output if one.size == size and _is_of_rows(one)]
            for size in {one.size for one in of_output}
        }
        known = _bad_rows(by_size.get(everything, []))
        for size, runs in by_size.items():
            bad = _bad_rows(runs) - (set() if size == everything else known)
            seen = {(id(one.inputs), int(row)) for one in runs for row in one.rows}
            if len(bad) <= tolerances.allowed_row_fraction * len(seen):
                allowed.add((output, size))
    return [
        _without_problem(one)
        if _is_of_rows(one) and (one.compared.comparison.output, one.size) in allowed
        else one
        for one in ran
    ]


def _is_of_rows(ran: Ran) -> bool:
    return ran.compared.comparison.question in (Question.VALUES, Question.DECISION)


def _bad_rows(runs: Iterable[Ran]) -> set[tuple[int, int]]:
    return {(id(one.inputs), int(row)) for one in runs for row in one.rows[one.compared.wrong]}


def _without_problem(ran: Ran) -> Ran:
    comparison: Comparison = replace(ran.compared.comparison, problem="", case="")
    return replace(ran, compared=replace(ran.compared, comparison=comparison))
