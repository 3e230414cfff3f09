"""One file per Triton backend: from a model to a version folder and the config that serves it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pipeline.artifacts import OnnxModel, RepositoryEntry
from pipeline.manifest import Lineage
from pipeline.model_config import ServingOptions
from pipeline.samples import Samples


class Backend(Protocol):
    """Writes entries for one Triton backend."""

    def entry(
        self,
        onnx: OnnxModel,
        samples: Samples,
        *,
        name: str,
        lineage: Lineage,
        options: ServingOptions,
        folder: Path,
    ) -> RepositoryEntry:
        """Fill the empty ``folder`` with the files of one version and describe it.

        The same arguments give the same digest. Nothing outside ``folder`` is touched.
        """
