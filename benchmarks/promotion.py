"""How long a promotion takes, by stage, and how long a commit takes to be answered with.

Promotes several versions of a scikit-learn and of a PyTorch model on the embedded stack and rolls
back. The time from the commit to the first answer is compared with Triton's poll interval plus the
time that Triton itself says it took to load the version.

    python benchmarks/promotion.py [--versions 5] [--poll-seconds 2] [--state-dir DIR]
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
from datetime import datetime
from pathlib import Path

from pipeline.artifacts import PromotionRequest
from pipeline.demo import science
from pipeline.flows.promote import promote
from pipeline.flows.rollback import rollback
from pipeline.settings import load_settings
from pipeline.stack import Stack
from pipeline.stack.shell import point_at_stack

_EVENT = r"I\d{{4}} (?P<time>[0-9:.]+) .*\"{event}\""


def main() -> None:
    """Promote, roll back, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else "")
    parser.add_argument("--versions", type=int, default=5)
    parser.add_argument("--poll-seconds", type=int, default=2)
    parser.add_argument("--state-dir", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(options.state_dir or Path(folder) / "state")
        try:
            stack.up(
                poll_seconds=options.poll_seconds,
                ports=dict.fromkeys(
                    ("mlflow", "s3", "triton_http", "triton_grpc", "triton_metrics"), 0
                ),
            )
            point_at_stack(os.environ, stack.environment_variables())
            run(stack, options.versions, options.poll_seconds)
        finally:
            stack.down()


def run(stack: Stack, versions: int, poll_seconds: int) -> None:
    """Measure and print."""
    settings = load_settings()
    stages: dict[str, dict[str, list[float]]] = {}
    waits: list[float] = []
    loads: list[float] = []
    for _ in range(versions):
        for kind, train in (("sklearn", science.train_churn), ("pytorch", science.train_digits)):
            trained = train()
            request = PromotionRequest(model=trained.model, version=trained.version)
            result = promote(request, settings)
            for stage, seconds in result.seconds.items():
                stages.setdefault(kind, {}).setdefault(stage, []).append(seconds)
            waits.append(result.confirmation.seconds_to_ready)
            loads.append(load_seconds(stack, trained.model, trained.version))
    for model in (science.CHURN, science.DIGITS):
        for stage, seconds in rollback(model, settings).seconds.items():
            stages.setdefault("rollback", {}).setdefault(stage, []).append(seconds)
    print_stages(stages)
    print_commit(waits, loads, poll_seconds)


def load_seconds(stack: Stack, model: str, version: int) -> float:
    """From "loading" to "successfully loaded" in Triton's own log."""
    text = stack.logs("triton")["triton"].read_text(encoding="utf-8", errors="replace")
    begun = _last_time(text, f"loading: {model}:{version}")
    ended = _last_time(text, f"successfully loaded '{model}'")
    return (ended - begun).total_seconds()


def _last_time(text: str, event: str) -> datetime:
    found = re.findall(_EVENT.format(event=re.escape(event)), text)
    return datetime.strptime(found[-1], "%H:%M:%S.%f")


def print_stages(stages: dict[str, dict[str, list[float]]]) -> None:
    """Medians of each stage as a Markdown table."""
    names = list(dict.fromkeys(name for of in stages.values() for name in of))
    print(f"\n| median seconds | {' | '.join(names)} | total |")
    print("|---" * (len(names) + 2) + "|")
    for kind, of in stages.items():
        medians = {name: statistics.median(values) for name, values in of.items()}
        cells = [f"{medians[name]:.2f}" if name in medians else "" for name in names]
        print(f"| {kind} | {' | '.join(cells)} | {sum(medians.values()):.2f} |")


def print_commit(waits: list[float], loads: list[float], poll_seconds: int) -> None:
    """Whether a commit is answered with within a poll interval plus the load time."""
    without_load = [(w - load) / poll_seconds for w, load in zip(waits, loads, strict=True)]
    print(
        f"\nFrom commit to ready, {len(waits)} promotions, Triton polling every {poll_seconds} s:"
    )
    print(f"- seconds: median {statistics.median(waits):.2f}, largest {max(waits):.2f}")
    print(f"- of these, loading: median {statistics.median(loads):.2f}, largest {max(loads):.2f}")
    print(
        f"- the rest, in poll intervals: median {statistics.median(without_load):.2f}, "
        f"largest {max(without_load):.2f}"
    )


if __name__ == "__main__":
    main()
