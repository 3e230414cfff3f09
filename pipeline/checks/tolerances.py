"""How far an answer may be from the source model's own prediction, and who decides it.

Every default is somebody's published one, by the type of the output:

========  ========  ========  ====================================================================
type      relative  absolute  source
========  ========  ========  ====================================================================
FP32      1e-3      1e-5      ``rtol`` of ONNX's backend test runner (``onnx.backend.test``);
                              ``atol`` of ``torch.testing.assert_close`` for float32
FP64      1e-3      1e-5      as FP32: requests carry FP32 into most graphs, which compute in it
FP16      1e-3      2^-10     ``rtol`` of both; the machine epsilon of the type
BF16      1.6e-2    2^-7      ``rtol`` of ``torch.testing.assert_close``; the machine epsilon
others    0         0         whole numbers, truth values and text are equal or wrong
========  ========  ========  ====================================================================

What is set, by who runs the pipeline or by tags of the model's author, counts before these
(:mod:`pipeline.flows.author_tags`). No row may be out of tolerance unless somebody allows a part of
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pipeline.reports import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE

NAMES: Final = ("relative_tolerance", "absolute_tolerance", "allowed_row_fraction")
"""Names of the settings."""

_DEFAULTS: Final = {
    "float16": (1e-3, 2.0**-10),
    "bfloat16": (1.6e-2, 2.0**-7),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Of one output: values agree within ``absolute + relative * |expected|``."""

    relative: float
    absolute: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """What was decided for a model.

    Attributes:
        relative_tolerance: For all floating-point outputs; None for the default of each type.
        absolute_tolerance: For all floating-point outputs; None for the default of each type.
        allowed_row_fraction: The part of the rows that may be out of tolerance.
    """

    relative_tolerance: float | None = None
    absolute_tolerance: float | None = None
    allowed_row_fraction: float = 0.0

    def of(self, dtype: str) -> Tolerance:
        """For outputs of a NumPy type."""
        relative, absolute = _DEFAULTS.get(dtype, (RELATIVE_TOLERANCE, ABSOLUTE_TOLERANCE))
        return Tolerance(
            relative=relative if self.relative_tolerance is None else self.relative_tolerance,
            absolute=absolute if self.absolute_tolerance is None else self.absolute_tolerance,
        )
