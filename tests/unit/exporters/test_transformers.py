from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.transformers
import numpy as np
import pytest
import torch
import yaml

from pipeline.artifacts import Export, SourceModel
from pipeline.checks.gate import check_export
from pipeline.errors import ModelError
from pipeline.exporters.transformers import TransformersExporter
from pipeline.exporters.transformers_pipelines import load_pipeline, quiet
from pipeline.exporters.transformers_tasks import task_of
from pipeline.samples import load_samples
from pipeline.testing.exporter_contract import (
    ExporterContract,
    export_here,
    source_from_folder,
)
from pipeline.testing.tiny_pipelines import MASK, TEXTS, tiny_example, tiny_pipeline

pytestmark = [
    # Said by Rust's binding to Python, and by torch of its own code.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers"),
]


def save(folder: Path, pipe: Any, **options: Any) -> SourceModel:
    with quiet():
        options.setdefault("input_example", tiny_example(pipe.task))
        mlflow.transformers.save_model(pipe, folder, pip_requirements=[], **options)
    return source_from_folder(folder)


def specs(tensors: Any) -> list[str]:
    return [str(spec) for spec in tensors]


class TestContractOfTokenClassification(ExporterContract):
    exporter = TransformersExporter

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> SourceModel:
        folder = tmp_path_factory.mktemp("logged") / "model"
        return save(folder, tiny_pipeline("token-classification"))

    def test_clients_send_texts_and_get_labels_with_places(self, exported: Export) -> None:
        step = exported.preprocessing
        assert step is not None
        assert specs(step.inputs) == ["text: STRING[?,1]"]
        assert specs(exported.onnx.outputs) == ["label: STRING[?,?]", "score: FP32[?,?]"]
        assert step.handed_on == ("start", "end")
        samples = load_samples(exported.samples)
        found = samples.outputs
        for row, text in enumerate(samples.inputs["text"].ravel()):
            labelled = found["label"][row] != ""
            places = zip(found["start"][row][labelled], found["end"][row][labelled], strict=True)
            assert "".join(text[a:b] for a, b in places) == text.replace(" ", "")

    def test_what_is_too_long_is_cut_off_as_the_pipeline_does_it(self, exported: Export) -> None:
        """This task's pipeline cuts off at the tokenizer's limit, so no text is refused."""
        origins = [probe.origin for probe in exported.probes]
        assert "3 texts longer than the model takes" in origins
        assert exported.left_out == ()
