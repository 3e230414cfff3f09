"""Versions that tell by their answers which version they are: ``y = version * x``.

Built as the product builds them, from an ONNX graph by the ``onnxruntime`` backend; the same recipe
gives the same bytes in every process.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from google.protobuf import text_format

from pipeline.artifacts import ONNX_FILE, OnnxModel, Release, RepositoryEntry
from pipeline.backends.onnxruntime import OnnxruntimeBackend
from pipeline.ensembles import NEWEST
from pipeline.flows.publication import Candidate
from pipeline.manifest import Lineage, Manifest, digest_folder
from pipeline.model_config import ServingOptions, config_from_text
from pipeline.samples import Array, Samples
from pipeline.tensors import DYNAMIC, DataType, TensorSpec

INPUT: Final = "x"
OUTPUT: Final = "y"
COLUMNS: Final = 4
_OPSET: Final = 17
_IR_VERSION: Final = 8
_OPTIONS: Final = ServingOptions(
    max_batch_size=8,
    preferred_batch_sizes=(),
    max_queue_delay_microseconds=0,
    instances=1,
    device="cpu",
)


class Flaw(enum.Enum):
    """What a bad version does."""

    LIES = "lies"
    RAISES = "raises"
    ABORTS = "aborts"
    HANGS = "hangs"


_AT_LOAD: Final = {
    Flaw.RAISES: "raise RuntimeError('bad on purpose')",
    Flaw.ABORTS: "os.abort()",
    Flaw.HANGS: "time.sleep(1e6)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a version is made of.

    Attributes:
        model: Triton model.
        version: Its number, and what it multiplies by.
        ballast: Bytes of weights that do nothing, to make the graph as large as wished.
        flaw: What is wrong with it; None for a good one.
        steps: The models that it asks, if it is an ensemble.
    """

    model: str
    version: int
    ballast: int = 0
    flaw: Flaw | None = None
    steps: tuple[str, ...] = ()


def expected(version: int, inputs: Array) -> Array:
    """What this version answers."""
    return inputs * np.float32(version)


def golden_answers(version: int) -> Samples:
    """What proves this version."""
    rows = np.arange(2 * COLUMNS, dtype=np.float32).reshape(2, COLUMNS)
    return Samples(inputs={INPUT: rows}, outputs={OUTPUT: expected(version, rows)})


def make_candidate(recipe: Recipe, folder: Path) -> Candidate:
    """A release, its golden answers and its files, which are below ``folder``."""
    golden = golden_answers(recipe.version)
    if recipe.steps:
        entry = _ensemble(recipe, folder)
    elif recipe.flaw is not None and recipe.flaw in _AT_LOAD:
        entry = _script(recipe, _AT_LOAD[recipe.flaw], folder)
    else:
        entry = _model(recipe, golden, folder)
    release = Release(
        manifest=entry.manifest,
        config=entry.config,
        relative_tolerance=1e-5,
        absolute_tolerance=1e-5,
    )
    return Candidate(release=release, golden=golden, entry=entry)


def _model(recipe: Recipe, golden: Samples, folder: Path) -> RepositoryEntry:
    graph, files = folder / "graph", folder / "entry"
    graph.mkdir()
    files.mkdir()
    (graph / ONNX_FILE).write_bytes(_graph(recipe))
    onnx = OnnxModel(
        path=graph,
        opset=_OPSET,
        inputs=(TensorSpec(name=INPUT, data_type=DataType.FP32, shape=(DYNAMIC, COLUMNS)),),
        outputs=(TensorSpec(name=OUTPUT, data_type=DataType.FP32, shape=(DYNAMIC, COLUMNS)),),
        digest="",
        source_digest="",
        flavor="onnx",
        tools={},
    )
    return OnnxruntimeBackend().entry(
        onnx,
        golden,
        name=recipe.model,
        lineage=_lineage(recipe),
        options=_OPTIONS,
        folder=files,
    )


def _ensemble(recipe: Recipe, folder: Path) -> RepositoryEntry:
    """Asks the newest version of each step, one after another; it has no files."""
    steps = recipe.steps
    tensors = (INPUT, *(f"between-{number}" for number in range(1, len(steps))), OUTPUT)
    scheduling = "".join(
        f'step {{ model_name: "{step}" model_version: {NEWEST} '
        f'input_map {{ key: "{INPUT}" value: "{given}" }} '
        f'output_map {{ key: "{OUTPUT}" value: "{made}" }} }} '
        for step, given, made in zip(steps, tensors, tensors[1:], strict=False)
    )
    return _handwritten(
        recipe, f'platform: "ensemble" ensemble_scheduling {{ {scheduling} }}', folder
    )


def _script(recipe: Recipe, at_load: str, folder: Path) -> RepositoryEntry:
    """A model of the Python backend that does this when it is loaded."""
    (folder / "model.py").write_text(
        "import os\nimport time\n\n\nclass TritonPythonModel:\n"
        f"    def initialize(self, args):\n        {at_load}\n\n"
        "    def execute(self, requests):\n        return []\n"
    )
    return _handwritten(recipe, 'backend: "python" instance_group { kind: KIND_CPU }', folder)


def _handwritten(recipe: Recipe, body: str, folder: Path) -> RepositoryEntry:
    text = (
        f'name: "{recipe.model}" max_batch_size: {_OPTIONS.max_batch_size} '
        f'input {{ name: "{INPUT}" data_type: TYPE_FP32 dims: {COLUMNS} }} '
        f'output {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: {COLUMNS} }} '
        f"version_policy {{ specific {{ versions: {recipe.version} }} }} {body}"
    )
    # As a switch writes it, which reads and writes the message.
    config = str(text_format.MessageToString(config_from_text(text)))
    manifest = Manifest(
        model=recipe.model,
        version=recipe.version,
        config_sha256=hashlib.sha256(config.encode()).hexdigest(),
        files=digest_folder(folder),
        lineage=_lineage(recipe),
        tools={},
    )
    return RepositoryEntry(folder=folder, manifest=manifest, config=config)


def _lineage(recipe: Recipe) -> Lineage:
    return Lineage(
        registered_model=recipe.model,
        registered_version=recipe.version,
        run_id=None,
        source="the proof",
        source_digest="",
        flavor="onnx",
    )


def _graph(recipe: Recipe) -> bytes:
    from onnx import TensorProto, helper

    factor = -1.0 if recipe.flaw is Flaw.LIES else float(recipe.version)
    shape: list[str | int | None] = ["rows", COLUMNS]
    weights = [helper.make_tensor("factor", TensorProto.FLOAT, [1], [factor])]
    if recipe.ballast:
        ballast = np.zeros(recipe.ballast, np.uint8).tobytes()
        weights.append(
            helper.make_tensor("ballast", TensorProto.UINT8, [recipe.ballast], ballast, raw=True)
        )
    graph = helper.make_graph(
        [helper.make_node("Mul", [INPUT, "factor"], [OUTPUT])],
        "multiply",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    return bytes(model.SerializeToString())
