"""Writes the step of texts to tokens: the tokenizer of a pipeline, and what the pipeline adds."""

from __future__ import annotations

import json
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Final

from pipeline.artifacts import Preprocessing
from pipeline.exporters.transformers_task import Task
from pipeline.tensors import DYNAMIC, DataType, TensorSpec
from pipeline.text_steps import STEP_FILE, TEXT, TOKENIZER_FILE

_LONGEST_TRIED: Final = 4200
"""Tokens; what takes more would need long to say that it does not."""


def write_step(task: Task, folder: Path) -> Preprocessing:
    """Fill the empty ``folder`` and describe it; call after the task was asked for tokens once."""
    backend = task.tokenizer.backend_tokenizer
    truncation = backend.truncation  # as the pipeline has set it for its last call
    document = json.loads(backend.to_str())
    document["truncation"] = document["padding"] = None
    (folder / TOKENIZER_FILE).write_text(
        json.dumps(document, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    rules = {
        "outputs": [
            {"name": name, "source": source, "padding": task.padding(source)}
            for name, source in task.sources.items()
        ],
        "truncation": truncation,
        "longest": _longest(task, truncation),
        "once": task.once,
        "padding_side": task.tokenizer.padding_side,
    }
    (folder / STEP_FILE).write_text(json.dumps(rules, indent=1) + "\n", encoding="utf-8")
    return Preprocessing(
        path=folder,
        inputs=(TensorSpec(name=TEXT, data_type=DataType.STRING, shape=(DYNAMIC, 1)),),
        outputs=tuple(
            TensorSpec(name=name, data_type=DataType.INT64, shape=(DYNAMIC, DYNAMIC))
            for name in task.sources
        ),
        handed_on=task.handed_on,
        paddings={name: task.padding(source) for name, source in task.sources.items()},
        pads_left=task.tokenizer.padding_side == "left",
        tools={"tokenizers": installed_version("tokenizers")},
    )


def _longest(task: Task, truncation: dict[str, Any] | None) -> int | None:
    """The most tokens that the network takes, found by asking it; None if it names no such number.

    Longer texts must be refused by the step: in a batch they would take others down with them.
    """
    config, pad = task.model.config, task.tokenizer.pad_token_id
    places = getattr(config, "max_position_embeddings", None)
    named = {task.tokenizer.model_max_length, places}
    # Models that count places from behind the padding token, such as RoBERTa, have fewer.
    named |= {places - pad - 1} if isinstance(places, int) else set()
    for size in sorted(n for n in named if isinstance(n, int) and 1 < n <= _LONGEST_TRIED):
        if not task.takes(size + 1):
            is_cut = truncation is not None and truncation["max_length"] <= size
            return None if is_cut else size
    return None
