# ruff: noqa: RUF001  letters that look like others are what is wanted here
"""More texts than were logged: other lengths, words never seen, other scripts, nothing at all.

Guarantees: the same example gives the same texts in every process; a token that each text needs
once is in each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np

from pipeline.artifacts import Preprocessing
from pipeline.samples import Array
from pipeline.text_steps import TEXT, TextStep

_SEED: Final = 20_261_121
_MOST_WORDS: Final = 32
_LONG: Final = 128
"""Tokens of a long text where the model has no limit of its own."""

_UNSEEN: Final = ("never-seen-before", "xqzzt", "3.14159", "#42", "e-mail@example.org", "(?!)", "…")
_SCRIPTS: Final = (
    "Grüße aus Köln, façade naïve",
    "Cafe\u0301 decomposed, Café composed",
    "Привет, мир",
    "你好，世界。日本語のテスト",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "👩\u200d👩\u200d👧 🇳🇴 😀 text",
    "ﬁne ＦＵＬＬ ｗｉｄｔｈ",
    "tab\tand\nlines\r\n\u00a0end",
    "zero\u200bwidth soft\u00adhyphen \u202eleft",
)
_BLANK: Final = ("", " ", "\n\t ")


def text_variations(
    preprocessing: Preprocessing, example: Sequence[str], affordable: Callable[[int], int]
) -> Iterator[tuple[dict[str, Array], str]]:
    """Inputs in the form of the example, and what they are, in words.

    Args:
        preprocessing: The step that takes them.
        example: The texts that were logged.
        affordable: How many rows of so many tokens may be asked about.
    """
    texts = _Texts(TextStep(preprocessing.path), example)
    limit = texts.step.limit or _LONG
    spread = np.linspace(1, _MOST_WORDS, affordable(min(limit, _LONG)) or 1)
    yield _asked(
        [texts.of_words(int(count), limit) for count in spread], "texts of words of the example"
    )
    yield _asked([texts.with_words(_UNSEEN) for _ in range(4)], "texts with words never seen")
    yield _asked([texts.completed(t) for t in _SCRIPTS], "texts in other scripts")
    yield _asked([texts.completed(t) for t in _BLANK], "empty or blank texts")
    if texts.step.special_words:
        found = [texts.with_words(texts.step.special_words[:8]) for _ in range(2)]
        yield _asked(found, "texts with the names of special tokens")
    rows = affordable(limit)
    longest = [texts.as_long_as(limit - short) for short in range(min(rows, 3))]
    kind = "texts as long as the model takes" if texts.step.limit else "long texts"
    yield _asked(longest, kind)
    if texts.step.limit:
        yield _asked(
            [texts.as_long_as(limit + more, at_least=True) for more in (1, 2, limit)[:rows]],
            "texts longer than the model takes",
        )


def _asked(texts: Sequence[str], what: str) -> tuple[dict[str, Array], str]:
    return {TEXT: np.array(texts, dtype=object).reshape(-1, 1)}, f"{len(texts)} {what}"


class _Texts:
    """Makes texts of the words of others."""

    def __init__(self, step: TextStep, example: Sequence[str]) -> None:
        self.step = step
        words = [word for text in example for word in text.split() if word != step.once]
        self._words = words or ["word"]
        self._generator = np.random.default_rng(_SEED)

    def completed(self, text: str) -> str:
        """With the token that must be there once, at its end."""
        return text if self.step.once is None else f"{text} {self.step.once}".strip()

    def of_words(self, count: int, limit: int) -> str:
        """So many words, or fewer where that would be too many tokens."""
        words = list(self._generator.choice(np.array(self._words, dtype=object), count))
        place = int(self._generator.integers(0, len(words) + 1))
        while len(words) > 1 and self.step.tokens_of(self._inserted(words, place)) > limit:
            words = words[: len(words) // 2]
        return self._inserted(words, place)

    def with_words(self, others: Sequence[str]) -> str:
        """Some words among others, without the one that must be there once."""
        others = [word for word in others if word != self.step.once]
        words = [*self._generator.choice(np.array(self._words, dtype=object), 3), *others]
        chosen = list(self._generator.permutation(np.array(words, dtype=object)))
        return self._inserted(chosen[:6], 1)

    def as_long_as(self, tokens: int, *, at_least: bool = False) -> str:
        """As many words as give at most, or at least, so many tokens."""
        low, high = 1, max(2, tokens + 1)
        while low < high:
            middle = (low + high + 1) // 2
            if self.step.tokens_of(self._repeated(middle)) > tokens:
                high = middle - 1
            else:
                low = middle
        is_exact = self.step.tokens_of(self._repeated(low)) == tokens
        return self._repeated(low + (at_least and not is_exact))

    def _repeated(self, count: int) -> str:
        words = [self._words[number % len(self._words)] for number in range(count)]
        return self._inserted(words, 1)

    def _inserted(self, words: Sequence[str], place: int) -> str:
        if self.step.once is None:
            return " ".join(words)
        place = min(place, len(words))
        return " ".join([*words[:place], self.step.once, *words[place:]])
