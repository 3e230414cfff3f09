"""Entries for Triton's onnxruntime backend.

The same entry is served by the C++ backend of the production images and by the Python-based
backend of the embedded stack.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tritonclient.utils import serialize_byte_tensor

from pipeline import __version__
from pipeline.artifacts import OnnxModel, RepositoryEntry
from pipeline.manifest import Lineage, Manifest, digest_folder
from pipeline.model_config import ServingOptions, WarmupInput, model_config
from pipeline.samples import Array, Samples
from pipeline.tensors import DataType, TensorSpec


class OnnxruntimeBackend:
    """A :class:`pipeline.backends.Backend` that serves the ONNX graph itself."""

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
        """Fill the empty ``folder`` with graph, external data and warm-up data."""
        shutil.copytree(onnx.path, folder, dirs_exist_ok=True)
        version = lineage.registered_version
        config = model_config(
            name=name,
            version=version,
            backend="onnxruntime",
            inputs=onnx.inputs,
            outputs=onnx.outputs,
            is_batching=onnx.is_batching,
            options=options,
            warmup=_write_warmup(onnx, samples, version, folder),
        )
        manifest = Manifest(
            model=name,
            version=version,
            config_sha256=hashlib.sha256(config.encode()).hexdigest(),
            files=digest_folder(folder),
            lineage=lineage,
            tools={"tritonpipe": __version__, **onnx.tools},
        )
        return RepositoryEntry(folder=folder, manifest=manifest, config=config)


def _write_warmup(
    onnx: OnnxModel, samples: Samples, version: int, folder: Path
) -> tuple[WarmupInput, ...]:
    """Write the first row of the samples as raw tensors, inside the version folder.

    Triton reads warm-up data from the folder of the *model*, where a new file would reload the
    served version. The data is part of the version instead, and reached by a relative path. It has
    no folder of its own, since every folder costs Triton eight requests per poll.
    """
    warmup = []
    for number, spec in enumerate(onnx.inputs):
        if spec.name not in samples.inputs:
            continue
        array = samples.inputs[spec.name]
        row = array[:1] if onnx.is_batching else array
        file = f"warmup-{number}.bin"
        (folder / file).write_bytes(_raw(row, spec.data_type))
        shape = TensorSpec(name=spec.name, data_type=spec.data_type, shape=tuple(row.shape))
        warmup.append(WarmupInput(spec=shape, file=f"../{version}/{file}"))
    return tuple(warmup)


def _raw(array: Array, data_type: DataType) -> bytes:
    """The tensor as it travels in the V2 protocol: little endian; strings with their length."""
    if data_type is not DataType.STRING:
        return array.astype(array.dtype.newbyteorder("<")).tobytes()
    encoded: bytes = serialize_byte_tensor(array).item()
    return encoded
