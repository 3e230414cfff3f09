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

What stands explicitly in the settings counts first, because who runs the pipeline answers for what
is served; then the tags of the model version, with which its author asks for more or less; then
the default. No row may be out of tolerance unless somebody allows a part of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.errors import SettingsError
from pipeline.reports import ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE

TAG_PREFIX: Final = "tritonpipe."
NAMES: Final = ("relative_tolerance", "absolute_tolerance", "allowed_row_fraction")
"""Names of the settings, and behind the prefix of the tags."""

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


def chosen_tolerances(explicit: Mapping[str, float], tags: Mapping[str, str]) -> Tolerances:
    """The settings, then the tags, then the defaults.

    Args:
        explicit: Settings that were set, by name; not those that have their default.
        tags: Tags of the model version.

    Raises:
        SettingsError: A tag holds no such number; names the tag.
    """
    chosen = {
        name: _number(TAG_PREFIX + name, tags[TAG_PREFIX + name])
        for name in NAMES
        if TAG_PREFIX + name in tags
    }
    return Tolerances(**{**chosen, **{name: explicit[name] for name in NAMES if name in explicit}})


def _number(tag: str, text: str) -> float:
    is_fraction = tag.endswith("fraction")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if 0 <= number < (1 if is_fraction else math.inf):
        return number
    wanted = "a number from 0 to below 1" if is_fraction else "a number that is not negative"
    raise SettingsError(
        f"the tag {tag} of the model version is {text!r}, expected {wanted}",
        hint=f"set the tag to {wanted}, or delete it",
    )
