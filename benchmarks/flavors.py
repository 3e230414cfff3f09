"""What becomes of each kind of model: exported and compared with its original, or refused.

Trains small models of every flavor, saves them as MLflow does, and sends them through the child
processes of a promotion: export, then check. Then spoils honest exports in every way that the tests
know, and asks the check about them. Ends with status 1 if anything ends otherwise than expected.

    python benchmarks/flavors.py [--only TEXT] [--write] [--keep FILE]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two models are looked at side by side

from flavor_boosters import booster_kinds
from flavor_code import FLAVOR, code_kinds, packed
from flavor_estimators import sklearn_kinds
from flavor_keras import keras_kinds
from flavor_models import Kind
from flavor_page import Line, page_of, shortened
from flavor_tensors import graph_kinds, network_kinds
from flavor_texts import text_kinds

from pipeline.artifacts import Export, SourceModel
from pipeline.checks.gate import LARGEST_BATCH, check_export
from pipeline.checks.tolerances import Tolerances
from pipeline.errors import ModelError
from pipeline.flows.worker import check_in_child, export_in_child
from pipeline.onnx_graph import load_graph
from pipeline.packed_models import PackedExport
from pipeline.samples import load_samples
from pipeline.tensors import TensorSpec
from pipeline.testing.exporter_contract import source_from_folder

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "flavors.md"
MUTATIONS: Final = ROOT / "tests" / "unit" / "checks" / "test_mutations.py"
PROCESSES: Final = 2

_training = threading.Lock()
"""Training is short, and its libraries share random numbers and threads; one model at a time."""


def main() -> int:
    """Look at all, print or write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="flavors or kinds with this text"
    )
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="go on where a run was ended")
    options = parser.parse_args()
    if options.only and options.write:
        parser.error("the page has everything: leave out --only")
    warnings.simplefilter("ignore")  # of the libraries about models as small as these
    logging.disable(logging.WARNING)

    kinds = [
        *sklearn_kinds(),
        *booster_kinds(),
        *network_kinds(),
        *keras_kinds(),
        *text_kinds(),
        *graph_kinds(),
        *code_kinds(),
    ]
    chosen = [
        kind for kind in kinds if options.only.lower() in f"{kind.flavor} {kind.name}".lower()
    ]
    kept = Kept(options.keep)
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(PROCESSES) as pool:
        folders = (Path(name) / str(number) for number in range(len(chosen)))
        lines = list(pool.map(kept.looked_at, chosen, folders))
        spoiled = list(mutants(Path(name), options.only))
    page = page_of(lines, spoiled)
    if options.write:
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(page)
    surprises = [line.surprise for line in (*lines, *spoiled) if line.surprise]
    print(*surprises, sep="\n", file=sys.stderr)
    return 1 if surprises else 0


class Kept:
    """What a run that was ended has found already, in a file of one JSON object per line."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        rows = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
        lines = [Line(**{**row, "cells": tuple(row["cells"])}) for row in map(json.loads, rows)]
        self._lines = {line.cells[:2]: line for line in lines}

    def looked_at(self, kind: Kind, folder: Path) -> Line:
        """Look at one kind, unless that was done, and say so."""
        known = self._lines.get((kind.flavor, kind.name))
        if known is not None:
            return known
        line = looked_at(kind, folder)
        print(f"{kind.flavor}: {kind.name}: {line.cells[-1]}", file=sys.stderr)
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as kept:
                kept.write(json.dumps(asdict(line)) + "\n")
        return line


def looked_at(kind: Kind, folder: Path) -> Line:
    """Train, save, export, check."""
    with _training:
        kind.save(folder / "model")
    source = source_from_folder(folder / "model")
    for name in ("exported", "cases"):
        (folder / name).mkdir()
    started = time.perf_counter()
    seconds = None
    export: Export | PackedExport
    try:
        if kind.flavor == FLAVOR:
            export, report = packed(source, folder)
        else:
            export = graph = export_in_child(source, folder / "exported")
            seconds = time.perf_counter() - started
            report = check_in_child(
                graph,
                cases=folder / "cases",
                tolerances=Tolerances(),
                max_batch_size=LARGEST_BATCH,
            )
    except ModelError as error:
        return _line(kind, "", "", "", "", seconds or time.perf_counter() - started, error.message)
    files = (export.samples, *(probe.samples for probe in export.probes))
    return _line(
        kind,
        route(export, source),
        ", ".join(f"`{spec}`" for spec in clients_send(export)),
        f"{sum(load_samples(file).rows for file in files)}",
        f"{report.max_absolute_error:.0e}" if report.max_absolute_error else "0",
        seconds or time.perf_counter() - started,
        "" if report.ok else report.problems[0] if report.problems else "nothing was compared",
    )


def _line(
    kind: Kind, way: str, inputs: str, rows: str, error: str, seconds: float, problem: str
) -> Line:
    words = " ".join(problem.split())
    is_expected = kind.refusal in words if words and kind.refusal else words == kind.refusal
    outcome = f"refused: {shortened(words)}" if words else "agrees"
    surprise = f"NOT EXPECTED: {kind.flavor}, {kind.name}: {words or 'agrees'}"
    return Line(
        cells=(kind.flavor, kind.name, way, inputs, rows, error, f"{seconds:.1f}", outcome),
        outcome="refused" if words else "agrees",
        surprise="" if is_expected else surprise,
    )


def clients_send(export: Export | PackedExport) -> tuple[TensorSpec, ...]:
    """The inputs of clients."""
    if isinstance(export, PackedExport):
        return export.packed.inputs
    return (export.preprocessing or export.onnx).inputs


def route(export: Export | PackedExport, source: SourceModel) -> str:
    """How the graph was made, by what it says itself."""
    if isinstance(export, PackedExport):
        return "own code, packed"
    if export.onnx.flavor == "onnx":
        return "passed through"
    if export.preprocessing is not None:
        return "tokenizer, and torch.onnx"
    if export.onnx.flavor == "pytorch":
        is_program = any(source.path.rglob("*.pt2"))
        return "torch.onnx of the program" if is_program else "torch.export, torch.onnx"
    graph = load_graph(export.onnx.file)
    if any(name.startswith("trees_") for node in graph.graph.node for name in node.input):
        return "skl2onnx, then trees"
    return {"tritonpipe": "own trees"}.get(graph.producer_name, graph.producer_name)


def mutants(folder: Path, only: str) -> Iterator[Line]:
    """Spoil the exports that the tests spoil, and ask the gate."""
    known = mutations()
    for build, ways in known.MUTANTS.items():
        chosen = {
            name: way for name, way in ways.items()
            if only.lower() in f"mutant {build.__name__} {name}".lower()
        }  # fmt: skip
        if not chosen:
            continue
        place = folder / build.__name__
        place.mkdir()
        export = build(place)
        for number, (name, (spoil, reason)) in enumerate(chosen.items()):
            report = check_export(known.mutated(export, spoil, place / f"mutant-{number}"))
            found = [one for one in report.comparisons if not one.ok]
            questions = Counter(str(one.question) for one in found)
            by = ", ".join(f"{question} ({count})" for question, count in questions.most_common())
            words = "\n".join(report.problems)
            surprise = f"NOT EXPECTED: mutant {name}: {words or 'passed'}"
            yield Line(
                cells=(build.__name__, name, by, shortened(str(found[0])) if found else "PASSED"),
                outcome="refused" if found else "passed",
                surprise="" if re.search(reason, words) else surprise,
            )


def mutations() -> Any:
    """The module of the tests, which lies in no package."""
    spec = spec_from_file_location("test_mutations", MUTATIONS)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(MUTATIONS)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
