"""What the comparison with a model's own predictions found, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RELATIVE_TOLERANCE: Final = 1e-3
"""Of answers, relative to the expected value; default ``rtol`` of ONNX's backend test runner."""

ABSOLUTE_TOLERANCE: Final = 1e-5
"""Of answers near zero; default ``atol`` of ``torch.testing.assert_close`` for float32."""


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
    """

    subject: str
    output: str
    rows: int
    mismatched: int
    max_absolute_error: float
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Whether the output agrees."""
        return not self.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The findings of the check stage; a report that is not ok stops the promotion."""

    comparisons: tuple[Comparison, ...]
    samples_origin: str
    relative_tolerance: float
    absolute_tolerance: float

    @property
    def ok(self) -> bool:
        """Whether every output agrees, and at least one was compared."""
        return bool(self.comparisons) and all(c.ok for c in self.comparisons)

    @property
    def max_absolute_error(self) -> float:
        """The largest difference over all comparisons."""
        return max((c.max_absolute_error for c in self.comparisons), default=0.0)
