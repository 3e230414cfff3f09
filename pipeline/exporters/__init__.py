"""One file per MLflow flavor: from the logged model to ONNX, with the model's own predictions.

An exporter runs in a child process, because loading a model runs its author's code. Third parties
add a flavor with an entry point in the group ``tritonpipe.exporters`` whose name is the flavor.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from pipeline.artifacts import Export, SourceModel


class Exporter(Protocol):
    """Exports one flavor."""

    flavor: ClassVar[str]
    """Name of the flavor in ``MLmodel``."""

    def export(self, source: SourceModel, destination: Path) -> Export:
        """Write the ONNX model below ``destination`` and predict with the original.

        Guarantees: the samples hold one array per graph input and one per graph output, under the
        names of the graph; the outputs are what the *original* model predicted, never what the
        ONNX graph gave; nothing is written outside ``destination``.

        Args:
            source: The fetched model.
            destination: An empty folder.

        Raises:
            ModelError: The model cannot be exported as it was logged.
            DependencyError: A package that the flavor needs is not installed.
        """
