"""Runs the graph beside this file on inputs that it failed on: python reproduce.py [case-1.npz].

Prints a verdict, and where they differ; exits with 1 if graph and original still disagree, with 0
if they agree now, and with 2 if that cannot be told. A copy of this file lies beside every kept
case, so it needs nothing but NumPy and ONNX Runtime.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

AGREES, DISAGREES, UNKNOWN = 0, 1, 2


def main(arguments: list[str]) -> int:
    """Run one case; returns the exit code."""
    import onnxruntime

    folder = pathlib.Path(__file__).parent
    with np.load(folder / (arguments[0] if arguments else "case-1.npz")) as file:
        case = dict(file)
    try:
        session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
    except Exception as error:  # noqa: BLE001  its errors have no common base
        return _told(DISAGREES, f"ONNX Runtime cannot load it: {error}")
    # A tokenizer may stand before the graph: then what it made is the input, beside what it should.
    feeds = {i.name: ("input:" + i.name, "found:" + i.name) for i in session.get_inputs()}
    if any("bfloat16" in output.type for output in session.get_outputs()):
        return _told(UNKNOWN, "NumPy has no bfloat16")
    inputs = {name: case[key] for name, keys in feeds.items() for key in keys if key in case}
    if inputs.keys() != feeds.keys():
        return _told(UNKNOWN, "the tokenizer before the graph refused a text")
    try:
        found = _run(session, inputs)
        expected = _wanted(case)
        if str(case["question"]) == "neighbours":
            rows = range(len(next(iter(inputs.values()))))
            alone = [_run(session, {n: a[r : r + 1] for n, a in inputs.items()}) for r in rows]
            expected = {name: np.concatenate([one[name] for one in alone]) for name in expected}
    except Exception as error:  # noqa: BLE001  as above
        return _told(DISAGREES, f"ONNX Runtime cannot run it: {error}")
    if expected.keys() & feeds.keys():
        return _told(UNKNOWN, "what differs is made by the tokenizer before the graph")
    return _compared(case, expected, found)


def _compared(case: Mapping[str, Any], expected: dict[str, Any], found: dict[str, Any]) -> int:
    problems = []
    for name, wanted in expected.items():
        relative, absolute = case["tolerance:" + name]
        answer = found.get(name)
        if answer is None:
            problems.append(f"there is no output {name!r}")
        elif _form(answer) != _form(wanted):
            problems.append(f"output {name!r} is {_form(answer)}, expected {_form(wanted)}")
        else:
            wrong = _wrong(wanted, answer, relative, absolute, str(case["question"]))
            problems += _differences(name, wanted, answer, wrong)
            if wrong.any() and wanted.dtype.kind == "f":
                problems.append(f"the tolerance is {absolute:g} + {relative:g} * |expected|")
    if problems:
        return _told(DISAGREES, *problems)
    return _told(AGREES, *(f"output {name!r}" for name in expected))


def _run(session: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    found = zip(names, session.run(names, inputs), strict=True)
    return {name: a.astype(str) if a.dtype == object else a for name, a in found}


def _wanted(case: Mapping[str, Any]) -> dict[str, Any]:
    """The expected outputs: the one that disagreed, or all if there was no answer."""
    output = str(case["output"])
    names = [key.removeprefix("expected:") for key in case if key.startswith("expected:")]
    return {name: case["expected:" + name] for name in names if output in ("", name)}


def _wrong(expected: Any, found: Any, relative: float, absolute: float, question: str) -> Any:
    if expected.dtype.kind != "f":
        return np.asarray(found != expected)
    wanted, actual = expected.astype(np.float64), found.astype(np.float64)
    if question == "decision":
        best = np.sort(wanted, axis=-1)[..., -2:]
        is_clear = best[..., 1] - best[..., 0] > absolute + relative * best[..., 1]
        return is_clear & (wanted.argmax(axis=-1) != actual.argmax(axis=-1))
    return ~np.isclose(actual, wanted, rtol=relative, atol=absolute, equal_nan=True)


def _differences(name: str, expected: Any, found: Any, wrong: Any) -> list[str]:
    if not wrong.any():
        return []
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    if expected.dtype.kind == "f" and wrong.shape == expected.shape:
        far = np.abs(expected.astype(np.float64) - found.astype(np.float64))
        far = np.where(wrong, np.nan_to_num(far, nan=np.inf), -1.0)
        place = tuple(int(i) for i in np.unravel_index(int(far.argmax()), far.shape))
    rows = int(np.asarray(wrong).reshape(len(wrong), -1).any(axis=1).sum()) if wrong.ndim else 1
    where = f"row {place[0]}" + (f" at {list(place[1:])}" if place[1:] else "") if place else "it"
    values = f"expected {_shown(expected[place])}, found {_shown(found[place])}"
    count = f"{rows} of {len(wrong) if wrong.ndim else 1} rows differ"
    return [f"output {name!r}, {where}: {values}", count]


def _shown(value: Any) -> str:
    return f"{value:.7g}" if isinstance(value, np.floating) else str(value)


def _form(array: Any) -> str:
    kind = "text" if array.dtype.kind == "U" else array.dtype
    return f"{kind} {list(array.shape)}"


def _told(code: int, *reasons: str) -> int:
    verdict = {AGREES: "agrees now", DISAGREES: "still disagrees", UNKNOWN: "cannot be told"}[code]
    sys.stdout.write(f"{verdict}: {'; '.join(reasons)}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
