"""The findings of a check as one HTML page, to be read beside the model version.

A page stands alone: no script, no address that it would load something from, and every text of a
model's author is escaped. The same report gives the same page.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from pipeline.reports import Comparison, ErrorSample, Report

_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:64em;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}"
    "td,th{padding:.25em .75em;text-align:left;border-bottom:1px solid #ddd;vertical-align:top}"
    "td.number{text-align:right;font-variant-numeric:tabular-nums}"
    ".ok{color:#1a7f37}.problem{color:#cf222e;font-weight:600}"
    "pre{background:#f6f8fa;padding:1em;overflow:auto}"
    "svg{max-width:100%;height:auto}"
)
_WIDTH, _HEIGHT, _MARGIN = 640, 360, 56
_Place = Callable[[float, float], tuple[float, float]]
_LOWEST: Final = -12
"""Decades: errors and values below are drawn there, 0 among them."""


def report_page(title: str, report: Report, facts: Mapping[str, str]) -> str:
    """The page.

    Args:
        title: What was checked.
        report: What was found.
        facts: What else the reader should know, by name.
    """
    verdict = (
        '<p class="ok">Every answer agrees with the model&#39;s own predictions.</p>'
        if report.ok
        else '<p class="problem">Refused: the answers do not agree with the model&#39;s own '
        "predictions.</p>"
    )
    parts = [
        verdict,
        table(facts.items()),
        "<h2>Comparisons</h2>",
        f"<p>Samples: {html.escape(report.samples_origin)}.</p>",
        _comparisons(report.comparisons),
        *_left_out(report.left_out),
        *_plots(report.errors),
    ]
    return page(title, parts)


def page(title: str, parts: Iterable[str]) -> str:
    """A page of parts that are HTML already, under a title that is not."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of text as HTML."""
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return "\n".join(["<table>", *(f"<tr>{line}</tr>" for line in lines), "</table>"])


def _comparisons(comparisons: Iterable[Comparison]) -> str:
    head = ["run", "inputs", "output", "question", "rows", "out of tolerance", "largest error", ""]
    cells = "".join(f"<th>{name}</th>" for name in head)
    lines = [f"<table>\n<tr>{cells}</tr>"]
    for c in sorted(comparisons, key=lambda c: c.ok):
        texts = "".join(
            f"<td>{html.escape(text)}</td>" for text in (c.subject, c.inputs, c.output, c.question)
        )
        numbers = "".join(
            f'<td class="number">{text}</td>'
            for text in (str(c.rows), str(c.mismatched), f"{c.max_absolute_error:.2e}")
        )
        kind, words = ("ok", "agrees") if c.ok else ("problem", html.escape(c.problem))
        lines.append(f'<tr>{texts}{numbers}<td class="{kind}">{words}</td></tr>')
    return "\n".join([*lines, "</table>"])


def _left_out(reasons: Sequence[str]) -> list[str]:
    if not reasons:
        return []
    items = "".join(f"<li>{html.escape(reason)}</li>" for reason in reasons)
    return ["<h2>Not compared</h2>", f"<ul>{items}</ul>"]


def _plots(errors: Sequence[ErrorSample]) -> list[str]:
    if not errors:
        return []
    return [
        "<h2>Error against output</h2>",
        (
            "<p>Each point is a value: how large it should be, and how far off it was. Above the "
            "line it is out of tolerance. Both scales are logarithmic; 0 is drawn at the edge.</p>"
        ),
        *(_plot(sample) for sample in errors),
    ]


def _plot(sample: ErrorSample) -> str:
    xs = [_decade(abs(value)) for value in sample.expected]
    ys = [_decade(error) for error in sample.errors]
    right = max(1, math.ceil(max(xs, default=0)))
    left = min(right - 1, math.floor(min(xs, default=0)))
    line = [
        (x, _decade(sample.absolute_tolerance + sample.relative_tolerance * 10**x))
        for x in (left + step * (right - left) / 40 for step in range(41))
    ]
    top = math.ceil(max([*ys, *(y for _, y in line)])) + 1

    def place(x: float, y: float) -> tuple[float, float]:
        across = _MARGIN + (x - left) / (right - left) * (_WIDTH - 2 * _MARGIN)
        up = (y - _LOWEST) / (top - _LOWEST) * (_HEIGHT - 2 * _MARGIN)
        return round(across, 1), round(_HEIGHT - _MARGIN - up, 1)

    points = []
    for x, y, error, limit in zip(xs, ys, sample.errors, sample.limits, strict=True):
        is_wrong = error != 0 and not error <= limit  # a NaN is no agreement
        color = "#cf222e" if is_wrong else "#0969da"
        across, down = place(x, y)
        points.append(f'<circle cx="{across}" cy="{down}" r="2.5" fill="{color}"/>')
    path = " ".join(f"{across},{down}" for across, down in (place(x, y) for x, y in line))
    return "\n".join(
        [
            f"<h3>{html.escape(sample.output)}</h3>",
            (
                f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
                f'aria-label="error of {html.escape(sample.output, quote=True)} against its value">'
            ),
            *_grid(place, range(left, right + 1), range(_LOWEST, top + 1, 2)),
            f'<polyline points="{path}" fill="none" stroke="#bf8700" stroke-width="2"/>',
            *points,
            "</svg>",
        ]
    )


def _grid(place: _Place, across: range, up: range) -> list[str]:
    lines = []
    style = 'stroke="#ddd" stroke-width="1"'
    for x in across[:: max(1, len(across) // 10)]:
        (left, bottom), (_, top) = place(x, up[0]), place(x, up[-1])
        lines.append(f'<line x1="{left}" y1="{bottom}" x2="{left}" y2="{top}" {style}/>')
        lines.append(_label(left, bottom + 18, f"1e{x}", "middle"))
    for y in up:
        (left, level), (right, _) = place(across[0], y), place(across[-1], y)
        lines.append(f'<line x1="{left}" y1="{level}" x2="{right}" y2="{level}" {style}/>')
        lines.append(_label(left - 6, level + 4, f"1e{y}", "end"))
    lines.append(_label(_WIDTH / 2, _HEIGHT - 12, "|expected|", "middle"))
    lines.append(_label(_MARGIN, _MARGIN - 16, "absolute error", "middle"))
    return lines


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" font-size="12" fill="#555" text-anchor="{anchor}">{text}</text>'


def _decade(value: float) -> float:
    if not math.isfinite(value):
        return 3.0 - _LOWEST
    return max(math.log10(value), _LOWEST) if value > 0 else float(_LOWEST)
