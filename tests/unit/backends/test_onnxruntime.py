from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.artifacts import OnnxModel, RepositoryEntry
from pipeline.backends.onnxruntime import OnnxruntimeBackend
from pipeline.manifest import Lineage, differences
from pipeline.model_config import ServingOptions, config_from_text
from pipeline.samples import Samples
from pipeline.tensors import DataType, TensorSpec

OPTIONS = ServingOptions(
    max_batch_size=16,
    preferred_batch_sizes=(),
    max_queue_delay_microseconds=100,
    instances=1,
    device="cpu",
)
LINEAGE = Lineage(
    registered_model="Fraud",
    registered_version=4,
    run_id="r",
    source="models:/m-1",
    source_digest="sha256:s",
    flavor="sklearn",
)
SAMPLES = Samples(
    inputs={
        "City name": np.array([["Köln"], ["Rom"]], dtype=object),
        "age (years)": np.array([[1.5], [2.0]], dtype=np.float32),
    },
    outputs={"label": np.array([1, 0], dtype=np.int64)},
)


@pytest.fixture
def onnx(tmp_path: Path) -> OnnxModel:
    folder = tmp_path / "onnx"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"graph")
    (folder / "weights.data").write_bytes(b"weights")
    return OnnxModel(
        path=folder,
        opset=18,
        inputs=(
            TensorSpec(name="City name", data_type=DataType.STRING, shape=(-1, 1)),
            TensorSpec(name="age (years)", data_type=DataType.FP32, shape=(-1, 1)),
        ),
        outputs=(TensorSpec(name="label", data_type=DataType.INT64, shape=(-1,)),),
        digest="sha256:o",
        source_digest="sha256:s",
        flavor="sklearn",
        tools={"onnx": "1"},
    )


@pytest.fixture
def entry_in(onnx: OnnxModel, tmp_path: Path) -> Callable[..., RepositoryEntry]:
    def build(name: str, model: OnnxModel = onnx) -> RepositoryEntry:
        folder = tmp_path / name
        folder.mkdir()
        return OnnxruntimeBackend().entry(
            model, SAMPLES, name="fraud", lineage=LINEAGE, options=OPTIONS, folder=folder
        )

    return build


def test_the_manifest_describes_the_folder(entry_in: Callable[..., RepositoryEntry]) -> None:
    entry = entry_in("a")
    assert differences(entry.folder, entry.manifest) == []
    assert [f.path for f in entry.manifest.files] == [
        "model.onnx",
        "warmup-0.bin",
        "warmup-1.bin",
        "weights.data",
    ]
    assert (entry.manifest.model, entry.manifest.version) == ("fraud", 4)


def test_same_model_same_digest_and_same_config(entry_in: Callable[..., RepositoryEntry]) -> None:
    a, b = entry_in("a"), entry_in("b")
    assert a.manifest.digest == b.manifest.digest
    assert a.config == b.config


def test_another_config_is_another_release(
    onnx: OnnxModel, entry_in: Callable[..., RepositoryEntry]
) -> None:
    other = replace(onnx, outputs=(replace(onnx.outputs[0], data_type=DataType.INT32),))
    assert entry_in("a").manifest.digest != entry_in("b", other).manifest.digest


def test_warmup_is_the_first_row_as_the_wire_carries_it(
    entry_in: Callable[..., RepositoryEntry],
) -> None:
    entry = entry_in("a")
    [warmup] = config_from_text(entry.config).model_warmup
    city, age = warmup.inputs["City name"], warmup.inputs["age (years)"]
    assert (city.input_data_file, age.input_data_file) == ("../4/warmup-0.bin", "../4/warmup-1.bin")
    text = "Köln".encode()
    raw = (entry.folder / "warmup-0.bin").read_bytes()
    assert raw == struct.pack("<I", len(text)) + text
    assert (entry.folder / "warmup-1.bin").read_bytes() == struct.pack("<f", 1.5)


def test_an_optional_input_without_sample_is_not_warmed_up_and_excludes_batching(
    onnx: OnnxModel, entry_in: Callable[..., RepositoryEntry]
) -> None:
    extra = TensorSpec(name="extra", data_type=DataType.FP32, shape=(-1,), optional=True)
    config = config_from_text(entry_in("a", replace(onnx, inputs=(*onnx.inputs, extra))).config)
    assert config.max_batch_size == 0
    assert "extra" not in config.model_warmup[0].inputs
