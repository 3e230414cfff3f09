"""What every task of transformers' pipelines has: a pipeline, and the arrays that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np

from pipeline.errors import ModelError
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
