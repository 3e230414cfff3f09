"""The state of a watcher for Prometheus, computed when it is asked for."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from pipeline.watch.difference import STATES
from pipeline.watch.pulse import Pulse

_PREFIX: Final = "tritonpipe_watch"


def rendered(pulse: Pulse) -> bytes:
    """All metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(pulse))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse

    def collect(self) -> Iterable[Metric]:
        return metrics_of(self._pulse)


def metrics_of(pulse: Pulse) -> Iterator[Metric]:
    """The metrics of one moment."""
    now = time.time()
    yield _gauge("leading", "1 for the watcher that acts.", float(pulse.is_leading))
    yield _gauge(
        "last_success_timestamp_seconds",
        "When a round went well last; 0 for never.",
        pulse.last_round or 0.0,
    )
    yield _gauge(
        "failing",
        "1 while rounds fail, as when registry or store do not answer.",
        float(bool(pulse.failure)),
    )
    yield CounterMetricFamily(
        f"{_PREFIX}_rounds", "Rounds that went well.", value=float(pulse.rounds)
    )
    models = GaugeMetricFamily(f"{_PREFIX}_models", "Models by state.", labels=["state"])
    counted = Counter(standing.state for standing in pulse.standings)
    for state in STATES:
        models.add_metric([state], counted[state])
    yield models
    lag = GaugeMetricFamily(
        f"{_PREFIX}_lag_seconds",
        "For how long a wish has not been what is served; absent for a model without such a wish.",
        labels=["model"],
    )
    for model, since in sorted(dict(pulse.unfulfilled_since).items()):
        lag.add_metric([model], now - since)
    yield lag
    outcomes = CounterMetricFamily(
        f"{_PREFIX}_promotions", "Work that ended, by outcome.", labels=["outcome"]
    )
    for outcome, count in sorted(dict(pulse.outcomes).items()):
        outcomes.add_metric([outcome], count)
    yield outcomes
    stages = SummaryMetricFamily(
        f"{_PREFIX}_stage_seconds", "What the stages of promotions took.", labels=["stage"]
    )
    for stage, (seconds, count) in sorted(dict(pulse.stage_seconds).items()):
        stages.add_metric([stage], count_value=count, sum_value=seconds)
    yield stages


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=value)
