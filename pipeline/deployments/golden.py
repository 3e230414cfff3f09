"""A golden request for an ONNX file that has none: generated inputs, and what the graph answers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from pipeline.artifacts import ONNX_FILE, ModelVersion, SourceModel
from pipeline.flows.isolation import Mode
from pipeline.flows.worker import Limits, export_in_child
from pipeline.golden_requests import golden_text
from pipeline.samples import load_samples
from pipeline.settings import Settings

_ROWS: Final = 4
_BACKENDS: Final = {"onnxruntime", "onnxruntime_onnx"}


def golden_of(folder: Path, config: Any, version: ModelVersion, settings: Settings) -> str | None:
    """The text of a golden request, computed by ONNX Runtime in a child process.

    Args:
        folder: The version folder.
        config: The parsed config.
        version: Where it comes from.
        settings: For the limits of the child.

    Returns:
        None for a backend whose answers cannot be computed here.

    Raises:
        ModelError: ONNX Runtime cannot load or run the graph.
    """
    file = config.default_model_filename or ONNX_FILE
    if (config.backend or config.platform) not in _BACKENDS or not (folder / file).is_file():
        return None
    with tempfile.TemporaryDirectory(prefix="tritonpipe-") as name:
        model, exported = Path(name, "model"), Path(name, "export")
        shutil.copytree(folder, model)
        exported.mkdir()
        # As MLflow logs a graph; so the exporter of that flavor computes the answers.
        (model / "MLmodel").write_text(f"flavors:\n  onnx:\n    data: {file!r}\n", "utf-8")
        source = SourceModel(version=version, path=model, flavors=("onnx",), digest="")
        limits = Limits(seconds=settings.export_seconds, isolation=Mode(settings.isolation))
        samples = load_samples(export_in_child(source, exported, limits=limits).samples)
    largest = config.max_batch_size
    return golden_text(samples.head(min(_ROWS, largest)) if largest else samples)
