from __future__ import annotations

import numpy as np
import pytest

from pipeline.checks.tolerances import Tolerance, Tolerances
from pipeline.settings import Settings


def test_a_default_of_the_settings_is_not_explicit(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("relative_tolerance", "absolute_tolerance", "allowed_row_fraction")
    assert Settings().explicit(*names) == {}
    monkeypatch.setenv("TRITONPIPE_ABSOLUTE_TOLERANCE", "0.001")
    assert Settings().explicit(*names) == {"absolute_tolerance": 0.001}


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_no_default_asks_for_more_than_the_type_can_hold(dtype: str) -> None:
    tolerance = Tolerances().of(dtype)
    one = np.ones((), dtype)
    assert np.nextafter(one, 2 * one) - one < tolerance.relative + tolerance.absolute


def test_a_narrow_type_has_wider_defaults_and_what_is_chosen_holds_for_all() -> None:
    assert Tolerances().of("float16").absolute > Tolerances().of("float32").absolute
    assert Tolerances().of("bfloat16").relative > Tolerances().of("float32").relative
    chosen = Tolerances(relative_tolerance=0.0, absolute_tolerance=0.0)
    assert chosen.of("bfloat16") == chosen.of("float64") == Tolerance(relative=0.0, absolute=0.0)
