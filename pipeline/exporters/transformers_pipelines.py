"""Loads what MLflow's ``transformers`` flavor keeps, without a word to any hub."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any, Final

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters import torch_programs
from pipeline.exporters.logged import loaded

TASKS: Final = ("text-classification", "token-classification", "fill-mask", "feature-extraction")
_OTHER_NAMES: Final = {"sentiment-analysis": "text-classification", "ner": "token-classification"}

_OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def load_pipeline(source: SourceModel) -> Any:
    """The pipeline: on the CPU, ready to predict.

    Raises:
        ModelError: It cannot be loaded, or is of a kind that is not served; says the way out.
    """
    _refuse_unsupported(source)
    os.environ.update(_OFFLINE)
    pipe = loaded(source, lambda: _load(source))
    import torch

    found = {str(p.dtype) for p in pipe.model.parameters() if p.is_floating_point()}
    if found - {str(torch.float32)}:
        raise ModelError(
            f"the weights of {source.version} are {', '.join(sorted(found))}; float32 is supported",
            hint="load the model with dtype=torch.float32 before it is logged",
        )
    if not getattr(pipe.tokenizer, "is_fast", False):
        raise ModelError(
            f"the tokenizer of {source.version}, a {type(pipe.tokenizer).__name__}, is written in "
            "Python and has no tokenizer.json, which is what the server runs",
            hint="log the pipeline with the fast tokenizer: "
            "AutoTokenizer.from_pretrained(..., use_fast=True)",
        )
    if pipe.tokenizer.pad_token_id is None:
        raise ModelError(
            f"the tokenizer of {source.version} has no padding token, so texts of different "
            "lengths cannot be in one batch",
            hint="set tokenizer.pad_token and model.config.pad_token_id before it is logged",
        )
    most = max(pipe.tokenizer.get_vocab().values())
    rows = pipe.model.get_input_embeddings().weight.shape[0]
    if most >= rows:
        raise ModelError(
            f"the tokenizer of {source.version} does not fit its network: it gives tokens the "
            f"numbers 0 to {most}, and the network knows {rows} of them",
            hint="log the tokenizer that the network was trained with, or call "
            "model.resize_token_embeddings(len(tokenizer)) before it is trained",
        )
    return pipe


def pipeline_options(source: SourceModel) -> dict[str, Any]:
    """The ``model_config`` that MLflow calls the pipeline with."""
    from mlflow.models import Model

    flavors = Model.load(str(source.path)).flavors
    return dict(flavors.get("python_function", {}).get("config") or {})


def quiet() -> AbstractContextManager[None]:
    """Torch, MLflow and transformers tell a lot; errors are raised anyway."""
    return torch_programs.quiet("mlflow", "transformers")


def _load(source: SourceModel) -> Any:
    import mlflow.transformers
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    pipe = mlflow.transformers.load_model(str(source.path))
    pipe.device = torch.device("cpu")  # a pipeline takes an accelerator where it finds one
    pipe.model.to(pipe.device).eval()
    return pipe


def _refuse_unsupported(source: SourceModel) -> None:
    from mlflow.models import Model

    flavor = Model.load(str(source.path)).flavors["transformers"]
    task = flavor.get("task")
    if _OTHER_NAMES.get(task, task) not in TASKS:
        raise ModelError(
            f"{source.version} is a pipeline for {task}; served are {', '.join(TASKS)}",
            hint="a network that takes tensors can be logged with mlflow.pytorch; generation needs "
            "a server for language models",
        )
    if not flavor.get("model_binary"):
        raise ModelError(
            f"{source.version} was logged without its weights, as a reference to "
            f"{flavor.get('source_model_name')!r}, and nothing is fetched from a hub here",
            hint="log it with save_pretrained=True, or add the weights: "
            "mlflow.transformers.persist_pretrained_model(MODEL_URI)",
        )
    if "peft_adaptor" in flavor:
        raise ModelError(
            f"{source.version} is an adapter (PEFT) to another model",
            hint="log the merged model: model.merge_and_unload()",
        )
