"""Entries that put a step and a network together under the name that clients ask.

An ensemble has no files: what it is made of stands in its config, with the version and the digest
of each part, so that its own digest names all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from pipeline import __version__
from pipeline.artifacts import RepositoryEntry
from pipeline.ensemble_edges import ENSEMBLE
from pipeline.manifest import Lineage, Manifest
from pipeline.model_config import ServingOptions, config_from_text, tensor_messages
from pipeline.tensors import TensorSpec


class EnsembleBackend:
    """Serves parts of one release as one model; tensors of the same name are the same."""

    def entry(
        self,
        parts: Sequence[RepositoryEntry],
        *,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        name: str,
        lineage: Lineage,
        options: ServingOptions,
        folder: Path,
    ) -> RepositoryEntry:
        """Describe the version in the empty ``folder``, which stays so.

        Args:
            parts: In the order in which they run; each names its versions in its own config.
            inputs: What clients send, batch dimension included.
            outputs: What clients get, batch dimension included.
            name: Triton model name.
            lineage: Where all of it comes from.
            options: How it is served.
            folder: The version folder.
        """
        version = lineage.registered_version
        config = pb.ModelConfig(
            name=name,
            platform=ENSEMBLE,
            max_batch_size=options.max_batch_size,
            version_policy=pb.ModelVersionPolicy(
                specific=pb.ModelVersionPolicy.Specific(versions=[version])
            ),
        )
        config.input.extend(tensor_messages(pb.ModelInput, inputs, is_batching=True))
        config.output.extend(tensor_messages(pb.ModelOutput, outputs, is_batching=True))
        for part in parts:
            message = config_from_text(part.config)
            # Exactly this version: no request meets a part of another release.
            step = config.ensemble_scheduling.step.add(
                model_name=message.name, model_version=part.manifest.version
            )
            step.input_map.update({tensor.name: tensor.name for tensor in message.input})
            step.output_map.update({tensor.name: tensor.name for tensor in message.output})
            config.parameters[message.name].string_value = part.manifest.digest
        text = text_format.MessageToString(config)
        manifest = Manifest(
            model=name,
            version=version,
            config_sha256=hashlib.sha256(text.encode()).hexdigest(),
            files=(),
            lineage=lineage,
            tools={"tritonpipe": __version__},
        )
        return RepositoryEntry(folder=folder, manifest=manifest, config=text)
