"""Whether a row's answer is its own: the same alone and among others."""

from __future__ import annotations

import numpy as np

from pipeline.checks.batches import among_others
from pipeline.checks.cases import Cases
from pipeline.checks.parity import Compared, failed, said_of
from pipeline.checks.runs import Inputs, Ran, Session, cannot_run, named, subject_of
from pipeline.checks.tolerances import Tolerance, Tolerances
from pipeline.checks.values import comparable, differences, in_rows, worst_difference
from pipeline.reports import Comparison, Question
from pipeline.samples import Array


def run_neighbours(
    session: Session, inputs: Inputs, *, largest: int, tolerances: Tolerances, cases: Cases
) -> list[Ran]:
    """Ask the graph, not its source, whether a row's answer depends on the rows beside it.

    Triton puts the rows of different clients into one batch. The tolerance is a tenth of the
    chosen one: kernels add up in another order in batches of another size, and do no more.
    """
    others = min(inputs.samples.rows, largest) - 1
    subject = f"{subject_of(session)}, rows alone and among {others} others"
    ran = []
    for row, batch in among_others(inputs.samples.rows, largest):
        place = int(np.flatnonzero(batch == row)[0])
        asked = inputs.samples.take(batch).inputs
        try:
            alone = session.run(inputs.samples.take(np.array([row])).inputs)
            among = session.run(asked)
        except Exception as error:  # noqa: BLE001  as above
            compared = failed(subject, inputs.origin, cannot_run(error))
            return [Ran(compared=compared, rows=batch, size=len(batch), inputs=inputs)]
        for name, array in among.items():
            if array.shape[:1] != batch.shape or alone[name].shape != (1, *array.shape[1:]):
                continue  # the comparison with the source tells it
            compared = _beside(name, alone[name], array[place : place + 1], row, tolerances)
            one = Ran(
                compared=said_of(compared, subject, inputs.origin),
                rows=np.array([row]),
                size=len(batch),
                inputs=inputs,
            )
            if compared.wrong.any():
                expected = {**among, name: array.copy()}
                expected[name][place] = alone[name][0]
                case = cases.keep(
                    asked,
                    expected,
                    among,
                    output=name,
                    question=Question.NEIGHBOURS,
                    tolerances={n: _tight(str(a.dtype), tolerances) for n, a in among.items()},
                )
                one = named(one, case)
            ran.append(one)
    return ran


def _beside(name: str, alone: Array, among: Array, row: int, tolerances: Tolerances) -> Compared:
    tolerance = _tight(str(alone.dtype), tolerances)
    wanted, found = comparable(alone), comparable(among)
    wrong, distance = differences(
        wanted, found, relative=tolerance.relative, absolute=tolerance.absolute
    )
    problem = ""
    if wrong.any():
        told = worst_difference(name, wanted, found, wrong, distance, np.array([row])).split(";")[0]
        problem = f"a row's answer depends on the rows beside it: {told}"
    rows = in_rows(wrong)
    comparison = Comparison(
        subject="",
        output=name,
        rows=1,
        mismatched=int(rows.sum()),
        max_absolute_error=0.0,
        problem=problem,
        question=Question.NEIGHBOURS,
        failing_rows=(row,) if problem else (),
    )
    return Compared(comparison=comparison, wrong=rows)


def _tight(dtype: str, tolerances: Tolerances) -> Tolerance:
    """A tenth of the chosen tolerance, but no less near zero than the default allows."""
    chosen, default = tolerances.of(dtype), Tolerances().of(dtype)
    epsilon = float(np.finfo(dtype).eps) if dtype in ("float16", "float32", "float64") else 0.0
    return Tolerance(
        relative=max(chosen.relative / 10, 2 * epsilon),
        absolute=min(chosen.absolute, max(chosen.absolute / 10, default.absolute)),
    )
