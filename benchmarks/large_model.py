"""How much memory a large model takes on its way, from the registry until it could be published.

Logs models with a given size of weights in a registry of its own, and runs ``tritonpipe promote
--dry-run`` on each: fetch, export, check, configure. Meanwhile the memory of that process and of
all that it starts is read from the kernel every 50 ms: the proportional set size (PSS), in which a
page that several processes share counts once, and the part of it that is not a file that the kernel
could drop and read again.

    python benchmarks/large_model.py [--gigabytes 2] [--kinds onnx,pt2,pickle] [--state-dir DIR]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import psutil

from pipeline.stack import Stack
from pipeline.stack.shell import point_at_stack

WIDTH: Final = 8192
"""Of a layer, whose weights are then a quarter of a GiB."""

LAYER_BYTES: Final = 4 * WIDTH * WIDTH
KINDS: Final = {
    "onnx": "onnx, weights beside the graph",
    "pt2": "pytorch, exported program",
    "pickle": "pytorch, pickled module",
}
_STAGE: Final = re.compile(r"^\S+ (\w+) +([0-9.]+) s ")
_PERIOD: Final = 0.05


@dataclass
class Peaks:
    """The largest sums over a process tree, in bytes."""

    all: int = 0
    anonymous: int = 0
    stages: dict[str, int] = field(default_factory=dict)


def main() -> None:
    """Log, promote without publishing, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--state-dir", type=Path)
    parser.add_argument("--log", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    layers = max(1, round(options.gigabytes * 2**30 / LAYER_BYTES))
    if options.log:
        log_model(options.log, layers)
        return
    with tempfile.TemporaryDirectory(dir=options.state_dir) as folder:
        stack = Stack(Path(folder) / "state")
        try:
            names = ("mlflow", "s3", "triton_http", "triton_grpc", "triton_metrics")
            stack.up(ports=dict.fromkeys(names, 0))
            point_at_stack(os.environ, stack.environment_variables())
            # A file of weights is written four times; /tmp may be kept in memory.
            os.environ.update(TMPDIR=folder, TRITONPIPE_CACHE=f"{folder}/cache")
            print("| model | weights | peak | by weights | not droppable | by stage | seconds |")
            print("|---" * 7 + "|")
            for kind in options.kinds.split(","):
                command = [sys.executable, "-P", __file__, "--log", kind]
                command += ["--gigabytes", str(options.gigabytes)]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                print(row(kind, layers * LAYER_BYTES), flush=True)
        finally:
            stack.down()


def row(kind: str, weights: int) -> str:
    """Promote it, and say what that took."""
    started = time.perf_counter()
    peaks = measured([sys.executable, "-P", "-m", "pipeline", "promote", f"{kind}/1", "--dry-run"])
    seconds = time.perf_counter() - started
    stages = ", ".join(f"{name} {peak / weights:.2f}" for name, peak in peaks.stages.items())
    return (
        f"| {KINDS[kind]} | {weights / 2**30:.2f} GiB | {peaks.all / 2**30:.2f} GiB "
        f"| **{peaks.all / weights:.2f}** | {peaks.anonymous / weights:.2f} | {stages} "
        f"| {seconds:.0f} |"
    )


def measured(command: list[str]) -> Peaks:
    """Run a command to its end and watch its memory; the stages are those that it tells."""
    peaks, current = Peaks(), {"": 0}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    teller = threading.Thread(target=follow, args=(process.stderr, peaks, current), daemon=True)
    teller.start()
    root = psutil.Process(process.pid)
    while process.poll() is None:
        everything = anonymous = 0
        for one in (root, *_children(root)):
            pss, own = memory_of(one.pid)
            everything, anonymous = everything + pss, anonymous + own
        peaks.all = max(peaks.all, everything)
        peaks.anonymous = max(peaks.anonymous, anonymous)
        current[""] = max(current[""], everything)
        time.sleep(_PERIOD)
    teller.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}")
    return peaks


def follow(lines: IO[str], peaks: Peaks, current: dict[str, int]) -> None:
    """A stage has ended when its line is told; then the next begins."""
    for line in lines:
        print(line, end="", file=sys.stderr)
        found = _STAGE.match(line)
        if found:
            peaks.stages[found[1]], current[""] = current[""], 0


def _children(root: psutil.Process) -> list[psutil.Process]:
    try:
        return root.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def memory_of(pid: int) -> tuple[int, int]:
    """Proportional set size and its anonymous part, in bytes; nothing of a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except (OSError, ValueError):
        return 0, 0
    found = dict(re.findall(r"^(Pss|Pss_Anon|Pss_Shmem): +(\d+) kB", text, re.MULTILINE))
    kilobytes = {name: int(number) for name, number in found.items()}
    own = kilobytes.get("Pss_Anon", 0) + kilobytes.get("Pss_Shmem", 0)
    return 1024 * kilobytes.get("Pss", 0), 1024 * own


def log_model(kind: str, layers: int) -> None:
    """Log and register a chain of layers, in a process of its own: MLflow takes it as one value."""
    import mlflow
    from mlflow.models import infer_signature

    rows = np.random.default_rng(0).normal(size=(4, WIDTH)).astype(np.float32)
    options: dict[str, Any] = {
        "name": "model",
        "registered_model_name": kind,
        "signature": infer_signature(rows, rows),
        "pip_requirements": [],
    }
    if kind == "onnx":
        mlflow.onnx.log_model(chain(layers), **options)
        return
    import torch

    torch.manual_seed(0)
    parts: list[Any] = []
    for _ in range(layers):
        parts += [torch.nn.Linear(WIDTH, WIDTH, bias=False), torch.nn.Tanh()]
    form = "pt2" if kind == "pt2" else "pickle"
    model = torch.nn.Sequential(*parts).eval()
    mlflow.pytorch.log_model(model, **options, input_example=rows, serialization_format=form)


def chain(layers: int) -> Any:
    """Products with matrices, in a graph that MLflow keeps with its weights in a file beside it."""
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for number in range(layers):
        matrix = generator.standard_normal((WIDTH, WIDTH), dtype=np.float32)
        matrix /= np.float32(np.sqrt(WIDTH))
        weights.append(numpy_helper.from_array(matrix, f"w{number}"))
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [f"m{number}"]))
        last = f"h{number}" if number < layers - 1 else "y"
        nodes.append(helper.make_node("Tanh", [f"m{number}"], [last]))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", WIDTH]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    main()
