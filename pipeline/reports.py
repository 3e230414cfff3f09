"""What the comparison with a model's own predictions found, as values."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

RELATIVE_TOLERANCE: Final = 1e-3
"""Of answers, relative to the expected value; default ``rtol`` of ONNX's backend test runner."""

ABSOLUTE_TOLERANCE: Final = 1e-5
"""Of answers near zero; default ``atol`` of ``torch.testing.assert_close`` for float32."""


class Question(enum.StrEnum):
    """What a comparison asks."""

    VALUES = "values"
    """Whether the values are those that the source model predicts."""

    DECISION = "decision"
    """Whether the most probable class is."""

    NEIGHBOURS = "neighbours"
    """Whether a row's answer is the same alone and among others."""

    FORM = "form"
    """Whether it runs, and its outputs have the right names, types and shapes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One output of one run against the source model's own prediction.

    Attributes:
        subject: What was run, such as ``onnx, batch 1`` or ``triton grpc``.
        output: Name of the output.
        rows: Number of rows compared.
        mismatched: Number of rows with a value out of tolerance.
        max_absolute_error: Largest absolute difference; 0 for exact types that agree.
        problem: What is wrong, in words; empty if the output agrees.
        question: What was asked of the output.
        inputs: Where the inputs come from, in words; empty for the golden samples.
        failing_rows: The first rows of the inputs that are out of tolerance.
        case: Name of the file that has the inputs, and what was expected and found.
    """

    subject: str
    output: str
    rows: int
    mismatched: int
    max_absolute_error: float
    problem: str = ""
    question: Question = Question.VALUES
    inputs: str = ""
    failing_rows: tuple[int, ...] = ()
    case: str = ""

    @property
    def ok(self) -> bool:
        """Whether the output agrees."""
        return not self.problem

    @property
    def where(self) -> str:
        """What was run on which inputs, in words."""
        return f"{self.subject}, {self.inputs}" if self.inputs else self.subject

    def __str__(self) -> str:
        return f"{self.where}: {self.problem or 'agrees'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSample:
    """Some values of one output, the worst among them, for a plot.

    Attributes:
        output: Name of the output.
        expected: What the source model predicts.
        errors: Absolute difference of each, in the same order.
        relative_tolerance: That was applied to this output.
        absolute_tolerance: That was applied to this output.
    """

    output: str
    expected: tuple[float, ...]
    errors: tuple[float, ...]
    relative_tolerance: float
    absolute_tolerance: float

    @property
    def limits(self) -> tuple[float, ...]:
        """The largest error that is tolerated, for each value."""
        return tuple(
            self.absolute_tolerance + self.relative_tolerance * abs(value)
            for value in self.expected
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The findings of the check stage; a report that is not ok stops the promotion.

    Attributes:
        comparisons: Everything that was looked at, agreeing or not.
        samples_origin: Where the golden samples come from, and those that the model carries.
        relative_tolerance: The widest that was applied to an output.
        absolute_tolerance: The widest that was applied to an output.
        allowed_row_fraction: The part of the rows that may be out of tolerance.
        left_out: What could not be compared, and why.
        errors: Values and their errors, for plots.
    """

    comparisons: tuple[Comparison, ...]
    samples_origin: str
    relative_tolerance: float
    absolute_tolerance: float
    allowed_row_fraction: float = 0.0
    left_out: tuple[str, ...] = ()
    errors: tuple[ErrorSample, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every output agrees, and at least one was compared."""
        return bool(self.comparisons) and all(c.ok for c in self.comparisons)

    @property
    def max_absolute_error(self) -> float:
        """The largest difference over all comparisons."""
        return max((c.max_absolute_error for c in self.comparisons), default=0.0)

    @property
    def problems(self) -> tuple[str, ...]:
        """Every finding in words."""
        return tuple(str(c) for c in self.comparisons if not c.ok)
