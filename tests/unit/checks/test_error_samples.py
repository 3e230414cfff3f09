from __future__ import annotations

import numpy as np

from pipeline.checks.error_samples import error_sample, merged
from pipeline.checks.tolerances import Tolerance

TOLERANCE = Tolerance(relative=1e-3, absolute=1e-5)


def test_few_values_are_all_kept() -> None:
    expected = np.array([[1.0, -2.0], [np.nan, 0.0]])
    errors = np.array([[0.1, 0.0], [np.nan, 0.5]])
    sample = error_sample("y", expected, errors, TOLERANCE)
    np.testing.assert_array_equal(sample.expected, expected.ravel())
    np.testing.assert_array_equal(sample.errors, errors.ravel())


def test_of_many_the_worst_and_the_extremes_are_kept() -> None:
    generator = np.random.default_rng(0)
    expected = generator.standard_normal(100_000)
    errors = np.abs(generator.standard_normal(100_000)) * 1e-6
    errors[[7, 70_000]] = 0.5, np.nan
    sample = error_sample("y", expected, errors, TOLERANCE)
    assert len(sample.expected) == len(sample.errors) <= 500
    assert np.isnan(sample.errors).sum() == 1
    assert 0.5 in sample.errors
    assert np.abs(expected).max() in np.abs(sample.expected)
    assert np.abs(expected).min() in np.abs(sample.expected)


def test_samples_of_one_output_become_one() -> None:
    parts = [
        error_sample(name, np.arange(n, dtype=float), np.zeros(n), TOLERANCE)
        for name, n in (("y", 300), ("z", 3), ("y", 300))
    ]
    by_name = {sample.output: sample for sample in merged(parts)}
    assert set(by_name) == {"y", "z"}
    assert 200 < len(by_name["y"].expected) <= 500
    assert by_name["z"] == parts[1]
