"""The tasks of transformers' pipelines: what each feeds to its model, makes of it and answers.

Each knows its answer twice: as tensor operations that become part of the graph, and as what the
pipeline itself says, brought into arrays of the same names. The second never uses the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from typing_extensions import override

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.transformers_pipelines import pipeline_options
from pipeline.exporters.transformers_task import ATTENTION_MASK, SPECIAL_TOKENS_MASK, Task
from pipeline.samples import Array

_WITHOUT_EFFECT: Final = frozenset({"batch_size", "num_workers", "padding", "return_tensors"})
"""Options of a pipeline that do not change its answers."""


class TextClassification(Task):
    """A label for each text, its score, and the scores of all classes in order of their number."""

    known_options = frozenset({"function_to_apply", "max_length", "top_k", "truncation"})
    outputs = ("label", "score", "scores")

    @override
    def looked_up(self) -> dict[str, tuple[str, ...]]:
        return {"label": self.labels()}

    @override
    def decode(self, output: Any, tokens: Mapping[str, Any]) -> tuple[Any, ...]:
        function = self._function()
        scores = output.float()
        if function == "sigmoid":
            scores = scores.sigmoid()
        elif function == "softmax":
            scores = scores.softmax(-1)
        return scores.argmax(-1, keepdim=True), scores.amax(-1, keepdim=True), scores

    @override
    def answer(self, text: str, tokens: Mapping[str, Array]) -> dict[str, Array]:
        said = self.asked(text, top_k=None)
        by_label = {one["label"]: one["score"] for one in said}
        return {
            "label": np.array([[said[0]["label"]]], dtype=object),
            "score": np.array([[said[0]["score"]]], np.float32),
            "scores": np.array([[by_label[name] for name in self.tables["label"]]], np.float32),
        }

    def _function(self) -> str:
        """As the pipeline chooses it."""
        config = self.model.config
        if chosen := self.options.get("function_to_apply"):
            return str(chosen).lower()
        if config.problem_type == "regression":
            return "none"
        is_alone = config.num_labels == 1
        return (
            "sigmoid"
            if is_alone or config.problem_type == "multi_label_classification"
            else "softmax"
        )


class TokenClassification(Task):
    """A label and its score for each token, with its place in the text; none for special tokens."""

    known_options = frozenset({"aggregation_strategy", "ignore_labels"})
    outputs = ("label", "score")
    handed_on = ("start", "end")

    @override
    def looked_up(self) -> dict[str, tuple[str, ...]]:
        if self.options.get("aggregation_strategy", "none") != "none":
            raise ModelError(
                "the pipeline groups tokens (aggregation_strategy), which depends on what it finds",
                hint="log it without; labels come with places in the text, so clients can group",
            )
        return {"label": (*self.labels(), "")}

    @override
    def preprocessed(self, text: str) -> Mapping[str, Any]:
        return next(iter(self._parts(text)))

    @override
    def decode(self, output: Any, tokens: Mapping[str, Any]) -> tuple[Any, ...]:
        import torch

        scores = output.float().softmax(-1)
        is_special = tokens[SPECIAL_TOKENS_MASK] > 0
        nothing = len(self.tables["label"]) - 1
        return (
            torch.where(is_special, nothing, scores.argmax(-1)),
            torch.where(is_special, 0.0, scores.amax(-1)),
        )

    @override
    def answer(self, text: str, tokens: Mapping[str, Array]) -> dict[str, Array]:
        size = tokens["input_ids"].shape[1]
        labels, scores = np.full((1, size), "", dtype=object), np.zeros((1, size), np.float32)
        for one in self.asked(text, ignore_labels=[]):
            labels[0, one["index"]], scores[0, one["index"]] = one["entity"], one["score"]
        return {"label": labels, "score": scores}

    def _parts(self, text: str) -> Any:
        parts = self.pipe.preprocess(text, is_split_into_words=False)
        for part in parts:
            yield {n: v for n, v in part.items() if n not in {"sentence", "is_last"}}


class FillMask(Task):
    """The most probable tokens in place of the mask, with their scores, the best first."""

    known_options = frozenset({"tokenizer_kwargs", "top_k"})
    outputs = ("token_str", "score", "token")

    @property
    @override
    def once(self) -> str | None:
        return str(self.tokenizer.mask_token)

    @override
    def completed(self, text: str) -> str:
        return text if self.once is None or self.once in text else f"{text} {self.once}"

    @override
    def looked_up(self) -> dict[str, tuple[str, ...]]:
        count = self.model.get_output_embeddings().weight.shape[0]
        return {"token_str": tuple(self.tokenizer.decode([number]) for number in range(count))}

    @override
    def decode(self, output: Any, tokens: Mapping[str, Any]) -> tuple[Any, ...]:
        # There is one mask, so adding up what is multiplied by 0 or 1 changes nothing.
        is_mask = (tokens["input_ids"] == self.tokenizer.mask_token_id).to(output.dtype)
        logits = (is_mask[:, None, :] @ output)[:, 0]
        scores, numbers = logits.float().softmax(-1).topk(self._count)
        return numbers, scores, numbers

    @override
    def answer(self, text: str, tokens: Mapping[str, Array]) -> dict[str, Array]:
        found = int((tokens["input_ids"] == self.tokenizer.mask_token_id).sum())
        if found != 1:
            raise ModelError(f"{self.once} is {found} times in a text, one is served")
        said = self.asked(text)
        return {
            "token_str": np.array([[one["token_str"] for one in said]], dtype=object),
            "score": np.array([[one["score"] for one in said]], np.float32),
            "token": np.array([[one["token"] for one in said]], np.int64),
        }

    @property
    def _count(self) -> int:
        return int(self.options.get("top_k") or 5)


class FeatureExtraction(Task):
    """The last hidden state of each token; zero where the mask, which comes with it, is."""

    known_options = frozenset({"tokenize_kwargs", "truncation"})
    outputs = ("features",)
    handed_on = (ATTENTION_MASK,)

    @override
    def decode(self, output: Any, tokens: Mapping[str, Any]) -> tuple[Any, ...]:
        if output.ndim != 3:
            raise ModelError("the first output of the network has no axis of tokens")
        return (output * tokens[ATTENTION_MASK][:, :, None].to(output.dtype),)

    @override
    def answer(self, text: str, tokens: Mapping[str, Array]) -> dict[str, Array]:
        return {"features": np.array(self.asked(text), np.float32)}


TASKS: Final[dict[str, type[Task]]] = {
    "text-classification": TextClassification,
    "token-classification": TokenClassification,
    "fill-mask": FillMask,
    "feature-extraction": FeatureExtraction,
}


def task_of(pipe: Any, source: SourceModel) -> Task:
    """The task of a pipeline.

    Raises:
        ModelError: It is called with options that are not served.
    """
    kind = TASKS[pipe.task]
    options = {k: v for k, v in pipeline_options(source).items() if k not in _WITHOUT_EFFECT}
    unknown = sorted(options.keys() - kind.known_options)
    if unknown:
        raise ModelError(
            f"{source.version} was logged with model_config that is not served: "
            + ", ".join(unknown),
            hint="log it without, or with: " + ", ".join(sorted(kind.known_options)),
        )
    return kind(pipe=pipe, options=options)
