"""The page that ``flavors.py`` writes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

PACKAGES: Final = (
    "mlflow", "mlflow-skinny", "numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx",
    "xgboost", "xgboost-cpu", "lightgbm", "catboost", "torch", "onnxscript",
    "transformers", "tokenizers",
    "keras", "tensorflow-cpu", "tf2onnx",
)  # fmt: skip
REASON_LENGTH: Final = 150
_NOISE: Final = re.compile(
    r"^onnx[,:] |\[ONNXRuntimeError\] : \d+ : \w+ : |"
    r"/onnxruntime_src/\S+ \S+\(.*?\)(::<lambda\(\)>)? "
)
"""Where in its own code ONNX Runtime was, and that it was ONNX Runtime."""

KINDS: Final = (
    "flavor", "kind of model", "route", "inputs of clients", "rows", "largest error", "seconds",
    "outcome",
)  # fmt: skip
MUTANTS: Final = ("export", "spoiled by", "questions", "first finding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Of a table.

    Attributes:
        cells: What it shows.
        outcome: In one word, for the totals.
        surprise: What was not expected; empty if it is as it must be.
    """

    cells: tuple[str, ...]
    outcome: str
    surprise: str = ""


def page_of(kinds: Sequence[Line], spoiled: Sequence[Line]) -> str:
    """The whole page."""
    return f"""# What becomes of each kind of model

Written by `make flavors`, which trains every model below, saves it as MLflow does, and sends it
through the child processes of a promotion. Rows are those that the original was asked about: its
example, and what was made of it. Errors are the largest absolute ones, over all sizes of batches.
Seconds are those of an export with the start of its process, two at a time on a shared machine with
two processors. What is refused is not published; the whole message comes with a hint.

With {versions()}.

## Flavors

{table(KINDS, kinds)}

{total(kinds)} of {len(kinds)} kinds of {_distinct(kinds)} flavors.

## Spoiled exports

Honest exports, each spoiled in one way by `tests/exporters/test_mutations.py`. Questions are what
the comparisons that failed had asked, with their number: about values, decisions, the form of the
answers, or whether a row depends on its neighbours.

{table(MUTANTS, spoiled)}

{total(spoiled)} of {len(spoiled)} mutants of {_distinct(spoiled)} exports.
"""


def _distinct(lines: Sequence[Line]) -> int:
    return len({line.cells[0] for line in lines})


def table(heads: Sequence[str], lines: Iterable[Line]) -> str:
    """In Markdown."""
    rows = [heads, ["---"] * len(heads), *(line.cells for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def total(lines: Iterable[Line]) -> str:
    """How many ended in which way."""
    counts = Counter(line.outcome for line in lines)
    words = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    return f"**{words}**"


def versions() -> str:
    """Of what made the table."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # one of two distributions of the same library
            continue
    return ", ".join(found)


def shortened(words: str) -> str:
    """A message in a cell of a table."""
    words = re.sub(r"\bmodel/1\b", "the model", _NOISE.sub("", words)).replace("|", "/")
    if len(words) <= REASON_LENGTH:
        return words
    return words[:REASON_LENGTH].rsplit(" ", 1)[0].rstrip(",;:") + " …"
