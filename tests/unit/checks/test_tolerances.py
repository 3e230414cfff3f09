from __future__ import annotations

import numpy as np
import pytest

from pipeline.checks.tolerances import Tolerance, Tolerances, chosen_tolerances
from pipeline.errors import SettingsError
from pipeline.settings import Settings

RELATIVE, ABSOLUTE = "tritonpipe.relative_tolerance", "tritonpipe.absolute_tolerance"
FRACTION = "tritonpipe.allowed_row_fraction"


def test_a_setting_counts_before_a_tag_and_a_tag_before_the_default() -> None:
    tags = {RELATIVE: "0.2", FRACTION: "0.01", "tritonpipe.state": "serving", "owner": "me"}
    chosen = chosen_tolerances({"relative_tolerance": 0.5}, tags)
    assert chosen == Tolerances(relative_tolerance=0.5, allowed_row_fraction=0.01)
    assert chosen_tolerances({}, tags).of("float32") == Tolerance(relative=0.2, absolute=1e-5)
    assert chosen_tolerances({}, {}) == Tolerances()


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


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        (RELATIVE, "1 %"),
        (RELATIVE, "-0.1"),
        (ABSOLUTE, "nan"),
        (ABSOLUTE, "inf"),
        (ABSOLUTE, ""),
        (FRACTION, "1"),
        (FRACTION, "1.5"),
    ],
)
def test_a_tag_that_holds_no_such_number_is_named(tag: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"{tag} of the model version is '{text}'") as caught:
        chosen_tolerances({}, {tag: text})
    assert "delete it" in caught.value.hint
