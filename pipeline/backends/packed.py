"""Entries for Triton's Python backend that run a packed model, see :mod:`pipeline.runner`."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from pipeline.artifacts import RepositoryEntry
from pipeline.manifest import Lineage, Manifest, digest_folder
from pipeline.model_config import ServingOptions, model_config
from pipeline.packed_models import PackedModel


class PackedBackend:
    """Serves a model by its own code in its own packages.

    There is no warm-up data: the runner asks the model for one answer before it is ready.
    """

    def entry(
        self,
        packed: PackedModel,
        *,
        name: str,
        lineage: Lineage,
        options: ServingOptions,
        folder: Path,
    ) -> RepositoryEntry:
        """Fill the empty ``folder`` with the packed model and describe it."""
        shutil.copytree(packed.path, folder, dirs_exist_ok=True)
        version = lineage.registered_version
        config = model_config(
            name=name,
            version=version,
            backend="python",
            inputs=packed.inputs,
            outputs=packed.outputs,
            is_batching=packed.is_batching,
            options=options,
            warmup=(),
        )
        manifest = Manifest(
            model=name,
            version=version,
            config_sha256=hashlib.sha256(config.encode()).hexdigest(),
            files=digest_folder(folder),
            lineage=lineage,
            tools=packed.tools,
        )
        return RepositoryEntry(folder=folder, manifest=manifest, config=config)
