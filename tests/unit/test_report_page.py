from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from pipeline.report_page import report_page
from pipeline.reports import Comparison, ErrorSample, Report

AGREES = Comparison(
    subject="onnx, batch 8", output="y", rows=8, mismatched=0, max_absolute_error=2e-7
)
DIFFERS = Comparison(
    subject="onnx, batch 1",
    output="<script>alert(1)</script>",
    rows=1,
    mismatched=1,
    max_absolute_error=0.5,
    problem="differs by 0.5 in row 0 & more",
)


def sample(expected: tuple[float, ...], errors: tuple[float, ...]) -> ErrorSample:
    return ErrorSample(
        output="y",
        expected=expected,
        errors=errors,
        relative_tolerance=1e-3,
        absolute_tolerance=1e-5,
    )


def page(*comparisons: Comparison, errors: tuple[ErrorSample, ...] = ()) -> str:
    report = Report(
        comparisons=comparisons,
        samples_origin="logged & kept",
        relative_tolerance=1e-3,
        absolute_tolerance=1e-5,
        left_out=("rows with <missing> text",),
        errors=errors,
    )
    return report_page("fraud/7", report, {"release": "sha256:abc"})


def elements(text: str, kind: str) -> list[ElementTree.Element]:
    body = text.removeprefix("<!doctype html>\n").replace('<meta charset="utf-8">', "")
    return list(ElementTree.fromstring(body).iter(kind))


def test_the_verdict_comes_first_and_failures_before_the_rest() -> None:
    assert "Every answer agrees" in page(AGREES)
    refused = page(AGREES, DIFFERS)
    assert "Refused" in refused
    assert refused.index("differs by 0.5") < refused.index("onnx, batch 8")


def test_what_a_model_says_is_text_and_nothing_else() -> None:
    text = page(DIFFERS)
    assert not elements(text, "script")
    assert "&lt;script&gt;" in text
    assert "rows with &lt;missing&gt; text" in text


def test_a_page_loads_nothing() -> None:
    text = page(AGREES, errors=(sample((1.0,), (1e-6,)),))
    assert "http" not in text
    assert "url(" not in text


@pytest.mark.parametrize(
    ("expected", "errors", "out_of_tolerance"),
    [
        ((1.0, 2.0, 3.0), (0.0, 1e-7, 1e-4), 0),
        ((1.0, 2.0, 3.0), (0.5, 1e-7, 1e-4), 1),
        ((0.0, 0.0), (1e-6, 1e-4), 1),
        ((1e30, -1e-30), (1e26, 1e-30), 0),
        ((math.inf, math.nan, 1.0), (math.nan, math.inf, 0.0), 2),
        ((0.0,), (0.0,), 0),
    ],
)
def test_every_value_is_a_point_and_the_wrong_ones_are_red(
    expected: tuple[float, ...], errors: tuple[float, ...], out_of_tolerance: int
) -> None:
    points = elements(page(AGREES, errors=(sample(expected, errors),)), "circle")
    assert len(points) == len(expected)
    red = [point for point in points if point.get("fill") == "#cf222e"]
    assert len(red) == out_of_tolerance
    for point in points:
        assert 0 <= float(point.get("cx", "nan")) <= 640
        assert 0 <= float(point.get("cy", "nan")) <= 360


def test_the_same_report_gives_the_same_page() -> None:
    errors = (sample((1.0, 2.0), (1e-6, 1e-5)),)
    assert page(AGREES, errors=errors) == page(AGREES, errors=errors)
