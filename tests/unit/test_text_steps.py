from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from pipeline.text_steps import STEP_FILE, TOKENIZER_FILE, TextStep

VOCABULARY = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "the": 5, "cat": 6}
IDS = {"name": "input_ids", "source": "ids", "padding": 0}
MASK = {"name": "attention_mask", "source": "attention_mask", "padding": 0}
SPECIAL = {"name": "special", "source": "special_tokens_mask", "padding": 1}
PLACES = [{"name": side, "source": side, "padding": 0} for side in ("start", "end")]
MakeStep = Callable[..., TextStep]


def texts(*asked: Any) -> Any:
    return np.array(asked, dtype=object).reshape(-1, 1)


@pytest.fixture
def step(tmp_path: Path) -> MakeStep:
    def make(**rules: Any) -> TextStep:
        tokenizer: Any = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        tokenizer.add_special_tokens(["[MASK]"])
        tokenizer.enable_truncation(3)  # whatever the file says of it does not count
        tokenizer.save(str(tmp_path / TOKENIZER_FILE))
        defaults: dict[str, Any] = {
            "outputs": [IDS, MASK],
            "truncation": None,
            "longest": None,
            "once": None,
            "padding_side": "right",
        }
        (tmp_path / STEP_FILE).write_text(json.dumps(defaults | rules))
        return TextStep(tmp_path)

    return make


def test_texts_become_arrays_as_long_as_the_longest(step: MakeStep) -> None:
    arrays = step().run(texts("The cat", "dog", b"the cat the cat"))
    assert arrays["input_ids"].tolist() == [
        [2, 5, 6, 3, 0, 0],
        [2, 1, 3, 0, 0, 0],
        [2, 5, 6, 5, 6, 3],
    ]
    assert arrays["attention_mask"].sum(axis=1).tolist() == [4, 3, 6]
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int64)}


def test_a_text_gives_the_same_alone_and_among_others(step: MakeStep) -> None:
    asked = ("the cat", "", "the the the cat dog", "Ünknown 你好 \n")
    for side in ("right", "left"):
        made = step(outputs=[IDS, MASK, SPECIAL, *PLACES], padding_side=side)
        together = made.run(texts(*asked))
        for row, text in enumerate(asked):
            alone = made.run(texts(text))
            for name, array in alone.items():
                width = array.shape[1]
                place = slice(-width, None) if side == "left" else slice(width)
                np.testing.assert_array_equal(together[name][row, place], array[0])
                outside = np.delete(together[name][row], np.arange(together[name].shape[1])[place])
                assert set(outside.tolist()) <= {made.paddings[name]}


def test_places_are_those_of_characters_not_of_bytes(step: MakeStep) -> None:
    arrays = step(outputs=PLACES).run(texts("é cat"))
    assert arrays["start"].tolist() == [[0, 0, 2, 0]]
    assert arrays["end"].tolist() == [[0, 1, 5, 0]]


def test_a_long_text_is_cut_off_only_where_the_step_says_so(step: MakeStep) -> None:
    text = texts("the cat " * 5)
    assert step().run(text)["input_ids"].shape == (1, 12)
    cut = step(truncation={"max_length": 5})
    assert cut.run(text)["input_ids"].tolist() == [[2, 5, 6, 5, 3]]
    assert (cut.limit, cut.tokens_of(str(text[0, 0]))) == (5, 12)


def test_what_the_network_could_not_take_is_refused_with_the_row(step: MakeStep) -> None:
    made = step(longest=4)
    assert made.run(texts("the cat"))["input_ids"].shape == (1, 4)
    with pytest.raises(ValueError, match="in row 1 has 5 tokens, the model takes at most 4"):
        made.run(texts("the", "the cat the"))


@pytest.mark.parametrize(("text", "count"), [("the cat", 0), ("[MASK] the [MASK]", 2)])
def test_a_token_that_must_be_there_once_is_counted(step: MakeStep, text: str, count: int) -> None:
    made = step(once="[MASK]")
    assert made.run(texts("the [MASK]"))["input_ids"].tolist() == [[2, 5, 4, 3]]
    with pytest.raises(ValueError, match=rf"row 0 has \[MASK\] {count} times, expected once"):
        made.run(texts(text))


def test_bytes_that_are_no_text_are_refused(step: MakeStep) -> None:
    with pytest.raises(ValueError, match="not UTF-8"):
        step().run(texts(b"\xff\xfe"))


def test_a_step_that_asks_for_what_no_tokenizer_gives_is_refused(step: MakeStep) -> None:
    with pytest.raises(ValueError, match="asks for bboxes"):
        step(outputs=[{"name": "boxes", "source": "bboxes", "padding": 0}])
