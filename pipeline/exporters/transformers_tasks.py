"""The tasks of transformers' pipelines: what each feeds to its model, makes of it and answers.

Each knows its answer twice: as tensor operations that become part of the graph, and as what the
pipeline itself says, brought into arrays of the same names. The second never uses the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np
from typing_extensions import override

from pipeline.artifacts import SourceModel
from pipeline.errors import ModelError
from pipeline.exporters.transformers_pipelines import pipeline_options
from pipeline.samples import Array

ATTENTION_MASK: Final = "attention_mask"
SPECIAL_TOKENS_MASK: Final = "special_tokens_mask"
_SOURCES: Final = {
    "input_ids": "ids",
    ATTENTION_MASK: "attention_mask",
    "token_type_ids": "type_ids",
    SPECIAL_TOKENS_MASK: "special_tokens_mask",
}
"""Where each array comes from in the Rust library, see :mod:`pipeline.text_steps`."""

_WITHOUT_EFFECT: Final = frozenset({"batch_size", "num_workers", "padding", "return_tensors"})
"""Options of a pipeline that do not change its answers."""


@dataclass(kw_only=True, eq=False)
class Task:
    """One logged pipeline.

    Attributes:
        pipe: The pipeline.
        options: What it is called with beside the text.
        outputs: Names of the outputs of the graph, in order.
        handed_on: Arrays of the step that clients get, too.
        tables: By output, the words that the graph looks up by number.
        sources: By array that the step makes, where it comes from in the tokenizer.
        taken: Those that the pipeline hands to its network.
    """

    known_options: ClassVar[frozenset[str]] = frozenset()
    outputs: ClassVar[tuple[str, ...]] = ()
    handed_on: ClassVar[tuple[str, ...]] = ()

    pipe: Any
    options: Mapping[str, Any]
    tables: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    taken: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = self.preprocessed(self.completed("a text"))
        unknown = sorted(set(given) - set(_SOURCES) - {"offset_mapping"})
        if unknown:
            raise ModelError(
                f"the network takes {', '.join(unknown)}, which a tokenizer does not give",
                hint="log the network with mlflow.pytorch and send tensors",
            )
        names = [name for name in _SOURCES if name in given or name == ATTENTION_MASK]
        self.sources = {name: _SOURCES[name] for name in names}
        self.taken = tuple(n for n in names if n in given and n != SPECIAL_TOKENS_MASK)
        if "offset_mapping" in given:
            self.sources |= {"start": "start", "end": "end"}
        self.tables = self.looked_up()

    @property
    def model(self) -> Any:
        """The network."""
        return self.pipe.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, a fast one."""
        return self.pipe.tokenizer

    @property
    def once(self) -> str | None:
        """A token that each text must hold exactly once."""
        return None

    @property
    def fed(self) -> tuple[str, ...]:
        """Arrays of the step that the graph takes."""
        return tuple(name for name in self.sources if name not in {"start", "end"})

    def completed(self, text: str) -> str:
        """A text of which the pipeline can make something."""
        return text

    def looked_up(self) -> dict[str, tuple[str, ...]]:
        """See :attr:`tables`."""
        return {}

    def decode(self, output: Any, tokens: Mapping[str, Any]) -> tuple[Any, ...]:
        """Tensor operations from the first output of the network to those of the graph.

        An output with a table is the numbers of its words.
        """
        raise NotImplementedError

    def answer(self, text: str, tokens: Mapping[str, Array]) -> dict[str, Array]:
        """What the pipeline says to one text, as the graph would: one row of each output."""
        raise NotImplementedError

    def asked(self, text: str, **more: Any) -> Any:
        """Whatever the pipeline says."""
        return self.pipe(text, **{**self.options, **more})

    def preprocessed(self, text: str) -> Mapping[str, Any]:
        """The tensors that the pipeline makes of a text."""
        chosen, _forward, _post = self.pipe._sanitize_parameters(**self.options)
        found: Mapping[str, Any] = self.pipe.preprocess(text, **chosen)
        return found

    def tokens(self, text: str) -> dict[str, Array]:
        """The same as the arrays of the step: one row of each."""
        given = {name: value.numpy() for name, value in self.preprocessed(text).items()}
        given.setdefault(ATTENTION_MASK, np.ones_like(given["input_ids"]))
        if "offset_mapping" in given:
            given["start"], given["end"] = np.moveaxis(given.pop("offset_mapping"), -1, 0)
        return {name: given[name].astype(np.int64) for name in self.sources}

    def padding(self, source: str) -> int:
        """What stands in an array of the step where a text has no token."""
        if source == "ids":
            return int(self.tokenizer.pad_token_id)
        if source == "type_ids":
            return int(self.tokenizer.pad_token_type_id)
        return int(source == SPECIAL_TOKENS_MASK)

    def takes(self, size: int) -> bool:
        """Whether the network takes so many tokens."""
        import torch

        ordinary = next(
            n for n in range(len(self.tokenizer)) if n not in self.tokenizer.all_special_ids
        )
        ids = torch.full((1, size), ordinary)
        try:
            self.model(input_ids=ids, attention_mask=torch.ones_like(ids))
        except Exception:  # noqa: BLE001  whatever its code raises
            return False
        return True

    def labels(self) -> tuple[str, ...]:
        """The names of the classes, by number."""
        config = self.model.config
        names = tuple(str(config.id2label[number]) for number in range(config.num_labels))
        if len(set(names)) < len(names):
            raise ModelError(
                f"two classes have the same name: {', '.join(names)}",
                hint="give model.config.id2label names that differ",
            )
        return names


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
