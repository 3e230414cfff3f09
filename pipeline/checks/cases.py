"""Inputs on which an export failed, kept with what was expected and found.

Guarantees: a case reproduces its finding with ONNX Runtime and NumPy alone; few are kept, because a
graph that is wrong is wrong everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.samples import Array, as_stored

SCRIPT: Final = "reproduce.py"
MOST_CASES: Final = 3

_TEXT: Final = '''\
"""Runs the graph beside this file on the inputs it failed on: python reproduce.py [case-1.npz]"""

import pathlib, sys
import numpy, onnxruntime

folder = pathlib.Path(__file__).parent
case = numpy.load(folder / (sys.argv[1] if len(sys.argv) > 1 else "case-1.npz"))
session = onnxruntime.InferenceSession(str(folder / "onnx" / "model.onnx"))
# A tokenizer may stand before the graph: then what it made is the input, beside what it should.
feeds = {i.name: ("input:" + i.name, "found:" + i.name) for i in session.get_inputs()}
inputs = {name: case[key] for name, keys in feeds.items() for key in keys if key in case}
if inputs.keys() != feeds.keys():
    sys.exit("the graph was not reached: the tokenizer before it refused a text")
names = [output.name for output in session.get_outputs()]
for name, found in zip(names, session.run(names, inputs)):
    print(name, "expected:", case["expected:" + name], "found:", found, sep="\\n")
'''


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
    ) -> str:
        """Name of the file; empty if enough are kept."""
        if self._folder is None or self._kept >= MOST_CASES:
            return ""
        if not self._kept and self._is_graph:
            (self._folder / SCRIPT).write_text(_TEXT, encoding="utf-8")
        self._kept += 1
        name = f"case-{self._kept}.npz"
        arrays = {
            f"{kind}:{tensor}": as_stored(array)
            for kind, arrays in (("input", inputs), ("expected", expected), ("found", found))
            for tensor, array in arrays.items()
        }
        np.savez_compressed(self._folder / name, allow_pickle=False, **arrays)
        return name
