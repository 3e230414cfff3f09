"""Entries written into folders, as people do, and what a command line says of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

STEP = '''
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Multiplies by {factor}."""

    def execute(self, requests):
        return [self._response(request) for request in requests]

    def _response(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", x * {factor})])
'''

IO = """
max_batch_size: 4
input {{ name: "{0}" data_type: TYPE_FP32 dims: [ 2 ] }}
output {{ name: "{1}" data_type: TYPE_FP32 dims: [ 2 ] }}
"""


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """A folder of entries; all names begin alike, and nobody else's do."""

    folder: Path
    prefix: str

    def step(self, name: str, *, factor: float, version: int = 1) -> Path:
        entry = self._entry(name, version)
        (entry / "config.pbtxt").write_text('backend: "python"' + IO.format("x", "y"))
        (entry / str(version) / "model.py").write_text(STEP.format(factor=factor))
        self.answer(entry, "x", "y", factor)
        return entry

    def ensemble(self, name: str, *steps: str, factor: float, version: int = 1) -> Path:
        """Steps one after another."""
        entry = self._entry(name, version)
        tensors = ["X", *(f"t{n}" for n in range(1, len(steps))), "Y"]
        config = 'platform: "ensemble"' + IO.format("X", "Y") + "ensemble_scheduling {"
        for number, step in enumerate(steps):
            config += (
                f' step {{ model_name: "{self.prefix}{step}" model_version: -1'
                f' input_map {{ key: "x" value: "{tensors[number]}" }}'
                f' output_map {{ key: "y" value: "{tensors[number + 1]}" }} }}'
            )
        (entry / "config.pbtxt").write_text(config + " }")
        (entry / str(version) / ".gitkeep").touch()
        self.answer(entry, "X", "Y", factor)
        return entry

    def next_version(self, entry: Path) -> None:
        """As ``git mv 1 2`` does."""
        (folder,) = (path for path in entry.iterdir() if path.is_dir())
        folder.rename(entry / str(int(folder.name) + 1))

    def answer(self, entry: Path, x: str, y: str, factor: float) -> None:
        common = {"datatype": "FP32", "shape": [1, 2]}
        golden = {
            "inputs": [{"name": x, "data": [1, -3], **common}],
            "outputs": [{"name": y, "data": [factor, -3 * factor], **common}],
        }
        (entry / "golden.json").write_text(json.dumps(golden))

    def _entry(self, name: str, version: int) -> Path:
        entry = self.folder / f"{self.prefix}{name}"
        (entry / str(version)).mkdir(parents=True, exist_ok=True)
        return entry


@pytest.fixture
def workbench(tmp_path: Path, remove_models: Callable[[str], None]) -> Iterator[Workbench]:
    """What is published from it goes away with the test, ensembles before their steps."""
    workbench = Workbench(folder=tmp_path, prefix=f"h-{uuid.uuid4().hex[:8]}-")
    yield workbench
    remove_models(workbench.prefix)
