"""The status of a mirror for Prometheus, computed when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.errors import SettingsError
from pipeline.mirror.status import MirrorStatus

_PREFIX: Final = "tritonpipe_mirror"


def serve_metrics(port: int, address: str, status: Callable[[], MirrorStatus]) -> None:
    """Answer at ``/metrics`` from a thread of its own, until the process ends.

    Raises:
        SettingsError: The port cannot be used.
    """
    registry = CollectorRegistry()
    registry.register(StatusCollector(status))
    try:
        start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        raise SettingsError(
            f"cannot serve metrics on {address}:{port}: {error.strerror}",
            hint="choose another --metrics-port",
        ) from error


class StatusCollector(Collector):
    """Turns a status into metrics."""

    def __init__(self, status: Callable[[], MirrorStatus]) -> None:
        self._status = status

    def collect(self) -> Iterable[Metric]:
        """All metrics, from one status."""
        return metrics_of(self._status())


def metrics_of(status: MirrorStatus) -> Iterator[Metric]:
    """The metrics of one status."""
    yield _gauge(
        "last_success_timestamp_seconds",
        "When the store was last listed; 0 for never.",
        status.last_success or 0.0,
    )
    yield _gauge(
        "seconds_behind",
        "For how long the local repository has been known to differ from the store, or the store "
        "could not be listed. What is refused does not count.",
        status.seconds_behind,
    )
    yield _gauge("models", "Models in place.", sum(bool(m.serving) for m in status.models))
    yield _gauge(
        "versions", "Version folders in place.", sum(len(m.versions) for m in status.models)
    )
    yield _gauge("free_bytes", "Space left for the local repository.", status.free_bytes)
    yield _counter("failures", "What failed, by reason.", "reason", status.failures)
    yield _counter("requests", "Requests to the store, by kind.", "kind", status.requests)
    yield _counter("loads", "Loads that Triton was asked for, by outcome.", "outcome", status.loads)
    yield CounterMetricFamily(f"{_PREFIX}_downloaded_bytes", "Downloaded.", value=status.bytes)
    troubled = GaugeMetricFamily(
        f"{_PREFIX}_troubled_models",
        "1 for each model that is not what the store says, with the reason; refused: what was "
        "published cannot be verified.",
        labels=["model", "reason"],
    )
    for model in status.models:
        if model.reason:
            troubled.add_metric([model.name, model.reason], 1)
    yield troubled


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=value)


def _counter(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
