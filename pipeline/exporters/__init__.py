"""One file per MLflow flavor: from the logged model to ONNX, with the model itself to compare with.

An exporter runs in a child process, because loading a model runs its author's code. Third parties
add a flavor with an entry point in the group ``tritonpipe.exporters`` whose name is the flavor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pipeline.artifacts import OnnxModel, Preprocessing, SourceModel
from pipeline.samples import Samples
from pipeline.tensors import ServedTensors


class Original(Protocol):
    """A model that can be asked, beside what shall be served in its place."""

    @property
    def served(self) -> ServedTensors:
        """What is served."""

    @property
    def example(self) -> Any:
        """Inputs in the form in which MLflow gives an input example back."""

    @property
    def origin(self) -> str:
        """Where the example comes from, in words for the report."""

    @property
    def ask(self) -> Callable[[Any], Samples]:
        """Asks the original, see :class:`Exported`."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        """A step between clients and what is served, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exported:
    """An ONNX model beside the original that it must agree with; lives in the child process only.

    Attributes:
        onnx: The exported model.
        example: Inputs in the form in which MLflow gives an input example back (a DataFrame, an
            array, or a dict of arrays): those that were logged, or made from the signature.
        origin: Where the example comes from, in words for the report.
        ask: Asks the original. Given inputs in the form of ``example``, it returns what a client
            would send for them, and what the *original* predicts on them, under the names, in the
            types and in the ranks of the graph; never what the ONNX graph gave. Raises
            :class:`pipeline.errors.ModelError` if the original cannot predict on them, or a request
            cannot carry them. Rows that no request could carry may be left out.
        preprocessing: A step that stands between clients and the graph; None for most. Then
            ``example`` holds the inputs of the step, and what the original predicts includes the
            outputs of the step: they are compared, too.
    """

    onnx: OnnxModel
    example: Any
    origin: str
    ask: Callable[[Any], Samples]
    preprocessing: Preprocessing | None = None

    @property
    def served(self) -> OnnxModel:
        """The graph."""
        return self.onnx


class Exporter(Protocol):
    """Exports one flavor."""

    flavor: ClassVar[str]
    """Name of the flavor in ``MLmodel``."""

    def export(self, source: SourceModel, destination: Path) -> Exported:
        """Write the ONNX model into ``destination/onnx`` and keep the original at hand.

        Guarantees: nothing is written outside ``destination``; the same source gives the same
        digest, in every process.

        Args:
            source: The fetched model.
            destination: An empty folder.

        Raises:
            ModelError: The model cannot be exported as it was logged.
            DependencyError: A package that the flavor needs is not installed.
        """
