"""Whether a packed model answers as its original, run as the server runs it.

Guarantees: what was unpacked from the archives that are published is run, by the very code that
Triton's Python backend runs; the same is compared as for a graph, batch by batch, and each row
alone and among others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from pipeline.checks.cases import Cases
from pipeline.checks.gate import report_of, run_part
from pipeline.checks.parity import failed
from pipeline.checks.runs import Inputs, Ran, SessionError
from pipeline.checks.tolerances import Tolerances
from pipeline.packed_models import PackedExport
from pipeline.reports import Report
from pipeline.runner.packed import OpenedModel
from pipeline.runner.supervisor import ModelDiedError, ModelRefusedError
from pipeline.runner.unpacking import UnpackingError
from pipeline.samples import Array, load_samples

SUBJECT: Final = "packed model"


def check_packed(
    export: PackedExport,
    *,
    tolerances: Tolerances,
    max_batch_size: int,
    cases: Path | None = None,
) -> Report:
    """Unpack and run a packed model, and compare with what its original predicted.

    Args:
        export: The packed model, and the predictions.
        tolerances: How far answers may be away.
        max_batch_size: The largest batch that the server forms.
        cases: Where to write what failed; None for nowhere.
    """
    golden = Inputs(samples=load_samples(export.samples), origin=export.samples_origin)
    probes = [Inputs(samples=load_samples(p.samples), origin=p.origin) for p in export.probes]
    kept = Cases(cases, is_graph=False)
    ran: list[Ran] = []
    with TemporaryDirectory() as cache:
        try:
            opened = OpenedModel(export.packed.path, cache=Path(cache), packages=export.packages)
        except (UnpackingError, ModelDiedError, ModelRefusedError, ValueError) as error:
            told = failed(SUBJECT, golden.origin, f"it cannot be served: {error}")
            ran.append(Ran(compared=told, rows=np.zeros(0, int), size=0, inputs=golden))
        else:
            try:
                session = _Session(opened)
                for part in (golden, *probes):
                    ran += run_part(session, export.packed, part, max_batch_size, tolerances, kept)
            finally:
                opened.close()
    report = report_of(
        export.packed,
        [golden, *probes],
        ran,
        tolerances=tolerances,
        max_batch_size=max_batch_size,
        left_out=export.left_out,
    )
    if not export.recorded:
        return report
    return replace(report, samples_origin=f"{report.samples_origin} and {export.recorded}")


class _Session:
    """A :class:`pipeline.checks.runs.Session` of the packed model."""

    subject = SUBJECT

    def __init__(self, opened: OpenedModel) -> None:
        self._opened = opened

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Ask it; raises SessionError if it does not answer."""
        try:
            return dict(self._opened.ask(inputs))
        except (ModelDiedError, ModelRefusedError) as error:
            raise SessionError(f"the packed model does not answer: {error}") from error
