"""The step in front of a network that takes tokens: texts in, arrays of tokens out.

It is run by the check and, from a copy of this file in the version folder, by Triton's Python
backend, so what was compared is what is served. Guarantees: the arrays of a text do not depend on
the texts beside it, but for padding at one end; a text that the network could not take is refused
with the reason, never cut off where its original does not cut it off.

Only the standard library, NumPy and ``tokenizers`` are used, and nothing else of this package,
because the server has no tritonpipe.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

TEXT: Final = "text"
"""What clients send: one text for each row, ``[rows, 1]``."""

TOKENIZER_FILE: Final = "tokenizer.json"
"""The tokenizer, as the Rust library keeps it."""

STEP_FILE: Final = "step.json"
"""What ``tokenizer.json`` does not say, see :class:`TextStep`."""

SOURCES: Final = ("ids", "attention_mask", "type_ids", "special_tokens_mask", "start", "end")
"""What a tokenizer gives for each token; the last two are places in the text, in characters."""


class TextStep:
    """A tokenizer with everything that decides which arrays come of a text.

    ``step.json`` has these fields:

    - ``outputs``: name, source (one of :data:`SOURCES`) and padding of each array;
    - ``truncation``: arguments of ``Tokenizer.enable_truncation``, or null for none;
    - ``longest``: the most tokens that the network takes, or null if nobody knows a limit;
    - ``once``: the text of a token that each text must hold exactly once, or null;
    - ``padding_side``: ``right`` or ``left``.
    """

    def __init__(self, folder: Path) -> None:
        """Read the files of a step.

        Raises:
            ValueError: They are not those of a step.
        """
        from tokenizers import Tokenizer

        self._rules = json.loads((folder / STEP_FILE).read_text(encoding="utf-8"))
        self._tokenizer: Any = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if self._rules["truncation"]:
            self._tokenizer.enable_truncation(**self._rules["truncation"])
        once = self._rules["once"]
        self._once = None if once is None else self._tokenizer.token_to_id(once)
        unknown = {output["source"] for output in self._rules["outputs"]} - set(SOURCES)
        if unknown:
            raise ValueError(f"{STEP_FILE} asks for {', '.join(sorted(unknown))}")

    @property
    def paddings(self) -> Mapping[str, int]:
        """What stands in each array where a text has no token."""
        return {output["name"]: int(output["padding"]) for output in self._rules["outputs"]}

    @property
    def pads_left(self) -> bool:
        """Whether padding is in front of the tokens."""
        return bool(self._rules["padding_side"] == "left")

    @property
    def once(self) -> str | None:
        """The text of a token that each text must hold exactly once."""
        found: str | None = self._rules["once"]
        return found

    @property
    def longest(self) -> int | None:
        """The most tokens of a text."""
        found: int | None = self._rules["longest"]
        return found

    @property
    def limit(self) -> int | None:
        """The most tokens that reach the network, whether longer texts are cut off or refused."""
        truncation = self._rules["truncation"]
        return int(truncation["max_length"]) if truncation else self.longest

    @property
    def special_words(self) -> list[str]:
        """What a text can hold that is a special token as a whole."""
        added = self._tokenizer.get_added_tokens_decoder()
        return [token.content for _, token in sorted(added.items()) if token.special]

    def tokens_of(self, text: str) -> int:
        """How many tokens a text has, if nothing is cut off."""
        encoding = self._tokenizer.encode(text)
        specials: int = encoding.special_tokens_mask.count(1)
        return len(encoding.ids) + sum(len(e.ids) - specials for e in encoding.overflowing)

    def run(self, texts: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.int64]]:
        """The arrays of some texts, as long as the longest of them.

        Args:
            texts: ``[rows, 1]``, of ``str`` or of UTF-8 as Triton hands it over.

        Returns:
            Arrays ``[rows, tokens]`` by the names of the outputs.

        Raises:
            ValueError: A text cannot be taken; says which and why.
        """
        encodings = self._tokenizer.encode_batch([_decoded(text) for text in texts.ravel()])
        for row, encoding in enumerate(encodings):
            self._refuse(row, encoding)
        width = max((len(encoding.ids) for encoding in encodings), default=0)
        arrays = {}
        for output in self._rules["outputs"]:
            array = np.full((len(encodings), width), output["padding"], np.int64)
            for row, encoding in enumerate(encodings):
                values = _values(encoding, output["source"])
                place = slice(width - len(values), None) if self.pads_left else slice(len(values))
                array[row, place] = values
            arrays[output["name"]] = array
        return arrays

    def _refuse(self, row: int, encoding: Any) -> None:
        longest, found = self.longest, len(encoding.ids)
        if longest is not None and found > longest:
            raise ValueError(
                f"the text in row {row} has {found} tokens, the model takes at most {longest}"
            )
        if self.once is not None and (count := encoding.ids.count(self._once)) != 1:
            raise ValueError(f"the text in row {row} has {self.once} {count} times, expected once")


def _values(encoding: Any, source: str) -> Any:
    if source in {"start", "end"}:
        return [offset[source == "end"] for offset in encoding.offsets]
    return getattr(encoding, source)


def _decoded(text: str | bytes) -> str:
    try:
        return text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise ValueError(f"a text is not UTF-8: {error}") from error
