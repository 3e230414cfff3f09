"""Entries that turn texts into tokens, for Triton's Python backend.

Everything that runs is in the version folder and in its manifest; the server needs the package
``tokenizers`` and nothing else.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Final

from pipeline import __version__, manifest, text_steps
from pipeline.artifacts import Preprocessing, RepositoryEntry
from pipeline.manifest import Lineage, Manifest, digest_folder
from pipeline.model_config import ServingOptions, model_config

_MODEL: Final = "python_models/tokenizer/model.py"
_COPIES: Final = {"tritonpipe_manifest.py": manifest, "tritonpipe_texts.py": text_steps}
"""Named so that no installed module can be taken for them."""


class TokenizerBackend:
    """Serves the step in front of a graph; on the CPU wherever the graph is served."""

    def entry(
        self,
        preprocessing: Preprocessing,
        *,
        name: str,
        lineage: Lineage,
        options: ServingOptions,
        folder: Path,
    ) -> RepositoryEntry:
        """Fill the empty ``folder`` with the files of one version and describe it.

        The same arguments give the same digest. Nothing outside ``folder`` is touched.
        """
        shutil.copytree(preprocessing.path, folder, dirs_exist_ok=True)
        code = resources.files("pipeline.backends") / _MODEL
        (folder / "model.py").write_bytes(code.read_bytes())
        for file, module in _COPIES.items():
            shutil.copyfile(str(module.__file__), folder / file)
        version = lineage.registered_version
        config = model_config(
            name=name,
            version=version,
            backend="python",
            inputs=preprocessing.inputs,
            outputs=preprocessing.outputs,
            is_batching=True,
            options=replace(options, device="cpu"),
            warmup=(),
        )
        published = Manifest(
            model=name,
            version=version,
            config_sha256=hashlib.sha256(config.encode()).hexdigest(),
            files=digest_folder(folder),
            lineage=lineage,
            tools={"tritonpipe": __version__, **preprocessing.tools},
        )
        return RepositoryEntry(folder=folder, manifest=published, config=config)
