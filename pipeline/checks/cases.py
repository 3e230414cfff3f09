"""Inputs on which an export failed, kept with what was expected and found.

Guarantees: a case reproduces its finding with ONNX Runtime and NumPy alone; few are kept, because a
graph that is wrong is wrong everywhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.checks import reproduce
from pipeline.checks.tolerances import Tolerance
from pipeline.reports import Question
from pipeline.samples import Array, as_stored

SCRIPT: Final = "reproduce.py"
MOST_CASES: Final = 3


class Cases:
    """Writes the first few cases into a folder."""

    def __init__(self, folder: Path | None, *, is_graph: bool = True) -> None:
        """Keep nothing if there is no folder; a script beside them if a graph failed."""
        self._folder = folder
        self._is_graph = is_graph
        self._kept = 0

    def keep(
        self,
        inputs: Mapping[str, Array],
        expected: Mapping[str, Array],
        found: Mapping[str, Array],
        *,
        output: str,
        question: Question,
        tolerances: Mapping[str, Tolerance],
    ) -> str:
        """Write one case.

        Args:
            inputs: What was asked.
            expected: What the original says.
            found: What was answered; nothing if there was no answer.
            output: Name of the output that disagrees; empty if there was no answer.
            question: What was asked of it.
            tolerances: Of every expected output.

        Returns:
            Name of the file; empty if enough are kept.
        """
        if self._folder is None or self._kept >= MOST_CASES:
            return ""
        if not self._kept and self._is_graph:
            shutil.copyfile(reproduce.__file__, self._folder / SCRIPT)
        self._kept += 1
        name = f"case-{self._kept}.npz"
        arrays = {
            f"{kind}:{tensor}": as_stored(array)
            for kind, arrays in (("input", inputs), ("expected", expected), ("found", found))
            for tensor, array in arrays.items()
        }
        arrays |= {
            f"tolerance:{tensor}": np.array(
                [tolerances[tensor].relative, tolerances[tensor].absolute]
            )
            for tensor in expected
        }
        arrays |= {"output": np.array(output), "question": np.array(str(question))}
        np.savez_compressed(self._folder / name, allow_pickle=False, **arrays)
        return name
