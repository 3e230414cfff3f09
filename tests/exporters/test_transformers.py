from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow.transformers
import numpy as np
import pytest
import torch
import yaml

from pipeline.artifacts import Export, ModelVersion, SourceModel
from pipeline.errors import ModelError
from pipeline.exporters import transformers_pipelines
from pipeline.exporters.transformers import TransformersExporter
from pipeline.exporters.transformers_pipelines import load_pipeline, quiet
from pipeline.exporters.transformers_steps import write_step
from pipeline.exporters.transformers_task import Task
from pipeline.exporters.transformers_tasks import (
    TASKS,
    FeatureExtraction,
    FillMask,
    TextClassification,
    TokenClassification,
    task_of,
)
from pipeline.samples import load_samples
from pipeline.testing.exporter_contract import ExporterContract, source_from_folder
from pipeline.testing.tiny_pipelines import MASK, TEXTS, tiny_example, tiny_pipeline
from pipeline.text_steps import TextStep


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


OTHER_TEXTS = ("", "Grüße 你好 [SEP] never-seen-before", "the the the the")
SOURCE = SourceModel(
    version=ModelVersion(name="letters", version=1, run_id=None, source="", tags={}),
    path=Path(),
    flavors=("transformers",),
    digest="",
)


@pytest.mark.parametrize(
    ("kind", "architecture", "more"),
    [
        (TextClassification, "bert", {}),
        (TextClassification, "bert", {"labels": ["only"]}),
        (TextClassification, "distilbert", {"problem_type": "multi_label_classification"}),
        (TextClassification, "roberta", {"problem_type": "regression", "max_tokens": 40}),
        (TokenClassification, "electra", {}),
        (FillMask, "bert", {}),
        (FeatureExtraction, "distilbert", {}),
    ],
)
def test_what_becomes_of_the_graph_is_what_the_pipeline_says(
    kind: type[Task], architecture: str, more: dict[str, Any], tmp_path: Path
) -> None:
    """Before any conversion: tensor operations and tokenizer step against the pipeline."""
    name = next(task for task, of in TASKS.items() if of is kind)
    task = kind(pipe=tiny_pipeline(name, architecture=architecture, **more), options={})
    for text in map(task.completed, (*TEXTS, *OTHER_TEXTS)):
        with torch.no_grad():
            tokens = task.tokens(text)
            given = {n: torch.from_numpy(array) for n, array in tokens.items()}
            output = task.model(**{n: given[n] for n in task.taken})[0]
            decoded = dict(zip(task.outputs, task.decode(output, given), strict=True))
            answer = task.answer(text, tokens)
        assert answer.keys() == decoded.keys()
        for output_name, expected in answer.items():
            found = decoded[output_name].numpy()
            if output_name in task.tables:
                found = np.array(task.tables[output_name], dtype=object)[found]
                np.testing.assert_array_equal(found, expected)
            else:
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        if text == task.completed(TEXTS[0]):
            write_step(task, tmp_path)
        step = TextStep(tmp_path).run(np.array([[text]], dtype=object))
        for token_name, array in tokens.items():
            np.testing.assert_array_equal(step[token_name], array)


@pytest.mark.parametrize(
    ("architecture", "options", "limits"),
    [
        ("bert", {}, (32, None)),
        ("roberta", {}, (31, None)),  # counts its places from behind the padding token
        ("bert", {"truncation": True}, (None, 32)),
        ("bert", {"truncation": True, "max_length": 9}, (None, 9)),
        ("bert", {"truncation": True, "max_length": 99}, (32, 99)),
    ],
)
def test_the_limit_of_a_text_is_found_by_asking_the_network(
    architecture: str,
    options: dict[str, Any],
    limits: tuple[int | None, int | None],
    tmp_path: Path,
) -> None:
    pipe = tiny_pipeline("text-classification", architecture=architecture)
    task = TextClassification(pipe=pipe, options=options)
    with torch.no_grad():
        write_step(task, tmp_path)
    rules = json.loads((tmp_path / "step.json").read_text())
    cut = rules["truncation"]
    assert (rules["longest"], cut and cut["max_length"]) == limits


def logged_as(folder: Path, **flavor: Any) -> SourceModel:
    flavors = {"transformers": {"task": "fill-mask", "model_binary": "model", **flavor}}
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    return replace(SOURCE, path=folder)


@pytest.mark.parametrize(
    ("flavor", "problem", "way_out"),
    [
        (
            {"task": "text-generation"},
            "a pipeline for text-generation; served are",
            "mlflow.pytorch",
        ),
        ({"model_binary": None}, "without its weights", "save_pretrained=True"),
        ({"peft_adaptor": "peft"}, "an adapter", "merge_and_unload"),
    ],
)
def test_what_cannot_be_served_is_refused_before_it_is_loaded(
    flavor: dict[str, Any], problem: str, way_out: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=problem) as caught:
        load_pipeline(logged_as(tmp_path, **flavor))
    assert way_out in caught.value.hint


def without_rust(pipe: Any) -> None:
    pipe.tokenizer = SimpleNamespace(is_fast=False, pad_token_id=0)


def in_half(pipe: Any) -> None:
    pipe.model.to(torch.bfloat16)


def with_more_words(pipe: Any) -> None:
    pipe.tokenizer.add_tokens(["never", "learnt"])


def without_padding(pipe: Any) -> None:
    pipe.tokenizer.pad_token = None


@pytest.mark.parametrize(
    ("change", "problem", "way_out"),
    [
        (without_rust, "no tokenizer.json", "use_fast=True"),
        (in_half, r"weights of letters/1 are torch\.bfloat16", "dtype=torch.float32"),
        (without_padding, "no padding token", "pad_token_id"),
        (with_more_words, "0 to 106, and the network knows 105", "resize_token_embeddings"),
    ],
)
def test_what_the_server_could_not_run_is_refused_with_the_way_out(
    change: Callable[[Any], None],
    problem: str,
    way_out: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = tiny_pipeline("fill-mask")
    change(pipe)
    monkeypatch.setattr(transformers_pipelines, "_load", lambda _source: pipe)
    with pytest.raises(ModelError, match=problem) as caught:
        load_pipeline(logged_as(tmp_path))
    assert way_out in caught.value.hint


@pytest.mark.parametrize(
    ("task", "options", "problem"),
    [
        ("text-classification", {"return_all_scores": True}, "model_config that is not served"),
        ("token-classification", {"aggregation_strategy": "simple"}, "groups tokens"),
        ("fill-mask", {"targets": ["a"]}, "not served: targets"),
    ],
)
def test_options_that_change_answers_are_served_or_refused(
    task: str, options: dict[str, Any], problem: str, tmp_path: Path
) -> None:
    document = {"flavors": {"python_function": {"config": options | {"batch_size": 4}}}}
    (tmp_path / "MLmodel").write_text(yaml.safe_dump(document))
    with pytest.raises(ModelError, match=problem):
        task_of(tiny_pipeline(task), replace(SOURCE, path=tmp_path))


def test_a_text_with_several_masks_is_not_asked_about() -> None:
    task = FillMask(pipe=tiny_pipeline("fill-mask"), options={})
    text = f"the {MASK} on the {MASK}"
    with pytest.raises(ModelError, match="2 times in a text, one is served"):
        task.answer(text, task.tokens(text))
