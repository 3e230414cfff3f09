"""Kinds of pipelines of transformers: tasks, networks and options; all of them tiny and random."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mlflow.transformers
from flavor_models import Kind

from pipeline.exporters.transformers_pipelines import quiet
from pipeline.testing.tiny_pipelines import TEXTS, tiny_example, tiny_pipeline


def text_kinds() -> Iterator[Kind]:
    """Of the ``transformers`` flavor."""

    def kind(name: str, task: str, refusal: str = "", **options: Any) -> Kind:
        return Kind(
            flavor="transformers", name=name, save=partial(_save, task, options), refusal=refusal
        )

    cut = {"truncation": True, "max_length": 16}
    yield kind("text classification, BERT", "text-classification", layers=2)
    yield kind("text classification, long texts cut off", "text-classification", model_config=cut)
    yield kind(
        "several labels at once, DistilBERT",
        "text-classification",
        architecture="distilbert",
        problem_type="multi_label_classification",
    )
    yield kind(
        "a number for a text, RoBERTa",
        "text-classification",
        architecture="roberta",
        labels=["stars"],
        problem_type="regression",
    )
    yield kind("token classification, ELECTRA", "token-classification", architecture="electra")
    yield kind("fill mask, BERT, the best 3", "fill-mask", model_config={"top_k": 3})
    yield kind("features, ALBERT", "feature-extraction", architecture="albert")
    yield kind("features, MPNet", "feature-extraction", architecture="mpnet")
    yield kind(
        "token classification in groups",
        "token-classification",
        "groups tokens",
        model_config={"aggregation_strategy": "simple"},
    )
    yield kind("text generation", "text-generation", "a pipeline for text-generation; served are")
    yield kind("weights of half precision", "fill-mask", "float32 is supported", half=True)


def _save(task: str, options: dict[str, Any], folder: Path) -> None:
    more = {key: options[key] for key in ("model_config",) if key in options}
    rest = {key: value for key, value in options.items() if key not in {"model_config", "half"}}
    pipe = _generator() if task == "text-generation" else tiny_pipeline(task, **rest)
    if options.get("half"):
        pipe.model.half()
    example = list(TEXTS) if task == "text-generation" else tiny_example(task)
    with quiet():
        mlflow.transformers.save_model(
            pipe, folder, input_example=example, pip_requirements=[], **more
        )


def _generator() -> Any:
    import transformers

    from pipeline.testing.tiny_pipelines import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    settings = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32
    )
    model = transformers.GPT2LMHeadModel(settings)
    return transformers.pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
