"""Asks the original model in the child process, and keeps its answers in files for the check.

Guarantees: every file lies below the destination, and together they are bounded in size; what the
original refuses, or no request could carry, is left out and told in words, never silently.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.artifacts import Export, Probe, SourceModel
from pipeline.errors import ModelError
from pipeline.exporters import Exported, Original, recorded
from pipeline.exporters.lengths import FEWEST_SIZES
from pipeline.exporters.logged import optional_columns
from pipeline.exporters.probes import Question, questions
from pipeline.samples import Samples, stacked
from pipeline.token_axes import token_axes

SAMPLES_FILE: Final = "samples.npz"

MOST_BYTES: Final = 16 * 2**20
"""Of all probes together, before they are compressed."""

_ROWS_AT_ONCE: Final = 256
"""Of recorded samples, so that the original needs no more memory for many than for some."""

_MOST_TRIES: Final = 64
"""How often the original is asked again for parts of rows that it refused together."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answer:
    """What the original said.

    Attributes:
        samples: None if it refused everything.
        refused: How many rows it refused.
        reason: Why, in its words.
    """

    samples: Samples | None
    refused: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What was written; the attributes are those of an :class:`pipeline.artifacts.Export`."""

    samples: Path
    samples_origin: str
    probes: tuple[Probe, ...]
    left_out: tuple[str, ...]
    recorded: str


def keep_answers(exported: Exported, source: SourceModel, destination: Path) -> Export:
    """Write what the original answers to its example and to the probes, and describe it.

    Args:
        exported: What an exporter gave.
        source: What it was made of.
        destination: The folder that the exporter wrote into.

    Raises:
        ModelError: The original cannot predict on its own example.
    """
    answers = written_answers(exported, source, destination)
    return Export(
        onnx=exported.onnx,
        samples=answers.samples,
        samples_origin=answers.samples_origin,
        probes=answers.probes,
        left_out=answers.left_out,
        recorded=answers.recorded,
        preprocessing=exported.preprocessing,
    )


def written_answers(exported: Original, source: SourceModel, destination: Path) -> Answers:
    """The same for anything that is served in the place of an original."""
    samples = exported.ask(exported.example)
    samples.save(destination / SAMPLES_FILE)
    probes: list[Probe] = []
    left_out: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the author's model about values that we made up
        for answered in _answered(exported, samples, source, left_out):
            file = destination / f"probe-{len(probes)}.npz"
            probes.append(Probe(samples=answered[1].save(file), origin=answered[0]))
        if not probes and not left_out:
            left_out.append("no further inputs could be made from an example of this form")
        recorded = list(_recorded(exported, samples, source))
    for number, (origin, answers) in enumerate(recorded):
        file = destination / f"recorded-{number}.npz"
        probes.append(Probe(samples=answers.save(file), origin=origin))
    return Answers(
        samples=destination / SAMPLES_FILE,
        samples_origin=exported.origin,
        probes=tuple(probes),
        left_out=tuple(left_out),
        recorded=" and ".join(origin for origin, _ in recorded),
    )


def _answered(
    exported: Original, samples: Samples, source: SourceModel, left_out: list[str]
) -> Iterator[tuple[str, Samples]]:
    """Origin and samples of what the original answers; the rest goes into ``left_out``."""
    is_frame = hasattr(exported.example, "columns")
    optional = optional_columns(source) if is_frame else frozenset()
    accepted: Counter[str] = Counter()
    refusals: dict[str, str] = {}
    remaining = MOST_BYTES
    for question in questions(exported, samples, optional=optional):
        if accepted[question.group] >= question.wanted and question.group:
            continue
        answer = _asked(exported, question, samples)
        if answer.samples is None:
            if question.group:
                refusals.setdefault(question.group, answer.reason)
            else:
                left_out.append(f"{question.origin}: the original refuses them: {answer.reason}")
            continue
        remaining -= answer.samples.nbytes
        if remaining < 0:
            left_out.append(f"{question.origin}: more than {MOST_BYTES >> 20} MiB of probes")
            return
        accepted[question.group] += 1
        origin = question.origin
        if answer.refused:
            origin += f"; {answer.refused} that the original refuses left out: {answer.reason}"
        yield origin, answer.samples
    left_out += [
        f"{group}: of other sizes, the original takes {accepted[group] or 'none'}: {reason}"
        for group, reason in refusals.items()
        if accepted[group] < FEWEST_SIZES
    ]


def _recorded(
    exported: Original, like: Samples, source: SourceModel
) -> Iterator[tuple[str, Samples]]:
    """Origin and samples of each file of samples that the model carries."""
    is_batching = exported.served.is_batching
    taken = 0
    for found in recorded.recorded_samples(source, exported.example):
        by_size = recorded.MOST_BYTES * like.rows // max(like.nbytes, 1)
        affordable = max(min(recorded.MOST_ROWS, by_size) - taken, 1)
        rows = min(found.rows, affordable) if is_batching else found.rows
        taken += rows
        values = recorded.spread(found.values, found.rows, rows) if is_batching else found.values
        size = _ROWS_AT_ONCE if is_batching else rows
        starts = range(0, rows, size)
        asked = [recorded.taken(values, np.arange(n, min(n + size, rows))) for n in starts]
        answers = [
            _asked(exported, Question(values=part, origin=found.file), like) for part in asked
        ]
        parts = [answer.samples for answer in answers if answer.samples is not None]
        reasons = [answer.reason for answer in answers if answer.reason]
        if not parts:
            raise ModelError(
                f"{source.version} refuses every one of the samples in {found.file} that it "
                f"carries: {reasons[0]}",
                hint="log it again with samples that it accepts",
            )
        of_all = f" of {found.rows}" if rows < found.rows else ""
        origin = f"{rows}{of_all} samples logged in {found.file}"
        if reasons:
            refused = sum(answer.refused for answer in answers)
            origin += f"; {refused} that the original refuses left out: {reasons[0]}"
        yield origin, _joined(exported, parts, found.file, source)


def _stacked(exported: Original, parts: list[Samples]) -> Samples:
    """One below the other; texts at the width of the longest."""
    if exported.preprocessing is None:
        return stacked(parts)
    return token_axes(exported.preprocessing, exported.served).stacked(parts)


def _joined(exported: Original, parts: list[Samples], file: str, source: SourceModel) -> Samples:
    try:
        return _stacked(exported, parts)
    except ValueError as error:
        raise ModelError(
            f"{source.version} answers the samples in {file} with arrays of different shapes",
            hint="put inputs of different lengths into files of their own: "
            "serving_samples.short.npz, serving_samples.long.npz",
        ) from error


def _asked(exported: Original, question: Question, like: Samples) -> _Answer:
    """Ask about all rows; if they are refused, about halves of them, to find those that are not."""
    answer = _once(exported, question.values, like)
    if answer.samples is not None or not exported.served.is_batching or question.group:
        return answer
    if _rows(question.values) == 1:
        return _Answer(samples=None, refused=1, reason=answer.reason)
    parts: list[Samples] = []
    refused, tries = 0, _MOST_TRIES
    waiting = list(_halves(question.values))
    while waiting:
        values = waiting.pop(0)
        tries -= 1
        part = _once(exported, values, like) if tries > 0 else answer
        if part.samples is not None:
            parts.append(part.samples)
        elif _rows(values) == 1 or tries <= 0:
            refused += _rows(values)
        else:
            waiting += _halves(values)
    kept = _stacked(exported, parts) if parts else None
    return _Answer(samples=kept, refused=refused, reason=answer.reason)


def _once(exported: Original, values: Any, like: Samples) -> _Answer:
    try:
        samples = exported.ask(values)
    except ModelError as error:
        return _Answer(samples=None, reason=error.message)
    wrong = [
        name
        for ours, theirs in ((samples.inputs, like.inputs), (samples.outputs, like.outputs))
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours or name not in theirs or ours[name].dtype != theirs[name].dtype
    ]
    if wrong:
        return _Answer(samples=None, reason=f"{', '.join(wrong)} would be of another type")
    return _Answer(samples=samples)


def _rows(values: Any) -> int:
    first = next(iter(values.values())) if isinstance(values, dict) else values
    return len(first)


def _halves(values: Any) -> Iterator[Any]:
    rows = _rows(values)
    for part in (slice(0, rows // 2), slice(rows // 2, rows)) if rows > 1 else ():
        if isinstance(values, dict):
            yield {name: array[part] for name, array in values.items()}
        elif isinstance(values, np.ndarray):
            yield values[part]
        else:
            yield values.iloc[part]
