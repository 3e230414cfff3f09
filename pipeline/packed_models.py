"""Models that are served by their own Python code: what travels through their promotion.

They take the place of :class:`pipeline.artifacts.OnnxModel` and :class:`pipeline.artifacts.Export`
where no exporter can convert a model and somebody has allowed its code in the server. All are
frozen and JSON-serialisable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import Export, OnnxModel, Probe
from pipeline.tensors import TensorSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonPackages:
    """The packages of a model, installed and as an archive.

    Attributes:
        folder: What the archive holds.
        archive: The same, compressed.
        python_version: Minor version of the Python that they are for.
        installed: Name and version of each.
    """

    folder: Path
    archive: Path
    python_version: str
    installed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedModel:
    """A version folder for Triton's Python backend, without its manifest.

    Attributes:
        path: The folder: ``model.py``, ``model.zip`` and the archive of the packages.
        inputs: What clients send.
        outputs: What clients get.
        is_batching: Whether the first dimension of all of them counts rows.
        digest: Digest of all files below ``path``.
        source_digest: Digest of the source model.
        flavor: The flavor that it was logged with.
        tools: Versions of the tools that made it, and of the packages of the model.
    """

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    is_batching: bool
    digest: str
    source_digest: str
    flavor: str
    tools: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedExport:
    """What packing hands on; the attributes mean what those of an ``Export`` mean.

    Attributes:
        packed: The packed model.
        samples: File with inputs and the model's own predictions on them.
        samples_origin: Where the inputs come from.
        probes: Further inputs and predictions.
        left_out: Inputs that could not be compared on, and why.
        recorded: Which of the probes are samples that the model carries; empty if none.
        packages: Folder with the packages of the model, as they are in the archive.
    """

    packed: PackedModel
    packages: Path
    samples: Path
    samples_origin: str
    probes: tuple[Probe, ...] = ()
    left_out: tuple[str, ...] = ()
    recorded: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that was written."""
        return (self.packed.path, self.samples, *(probe.samples for probe in self.probes))


def served_of(export: Export | PackedExport) -> OnnxModel | PackedModel:
    """What answers, whichever of the two it is."""
    return export.packed if isinstance(export, PackedExport) else export.onnx
