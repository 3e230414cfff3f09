"""Asks the original model in the child process, and keeps its answers in files for the check.

Guarantees: every file lies below the destination; the same exported model gives the same bytes, in
every process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pipeline.artifacts import Export
from pipeline.exporters import Exported

SAMPLES_FILE: Final = "samples.npz"


def keep_answers(exported: Exported, destination: Path) -> Export:
    """Write what the original answers to its example, and describe it.

    Args:
        exported: What an exporter gave.
        destination: The folder that the exporter wrote into.

    Raises:
        ModelError: The original cannot predict on its own example.
    """
    samples = exported.ask(exported.example)
    return Export(
        onnx=exported.onnx,
        samples=samples.save(destination / SAMPLES_FILE),
        samples_origin=exported.origin,
    )
