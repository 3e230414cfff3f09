"""Each piece of work as a trace with a span for each stage, sent by OTLP; off by default.

On when ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set, as for every program that speaks OpenTelemetry; its
other variables (headers, service name, resource) hold, too. A collector that is down costs a line
in the log.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from pipeline import __version__
from pipeline.errors import DependencyError
from pipeline.watch.events import ENDED, Event, Tell

_VARIABLES: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_NANOSECONDS: Final = 1_000_000_000


def is_wanted() -> bool:
    """Whether the environment names a collector."""
    return any(os.environ.get(name) for name in _VARIABLES)


def open_traces() -> tuple[Tell, Callable[[], None]]:
    """What turns events into traces, and what sends the last of them at the end.

    Raises:
        DependencyError: The exporter is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise DependencyError(
            f"{error.name} is not installed, and OTEL_EXPORTER_OTLP_ENDPOINT is set",
            hint="pip install 'tritonpipe[tracing]', or unset the variable",
        ) from error
    resource = Resource.create(
        {"service.name": os.environ.get("OTEL_SERVICE_NAME", "tritonpipe-watch")}
    )
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracer = provider.get_tracer("tritonpipe", __version__)
    return lambda event: traced(tracer, event), provider.shutdown


def traced(tracer: Any, event: Event) -> None:
    """Make the trace of work that has ended; stages follow each other without a gap."""
    from opentelemetry.trace import Status, StatusCode, set_span_in_context

    if event.kind != ENDED:
        return
    begun = int((event.at - event.seconds) * _NANOSECONDS)
    root = tracer.start_span(
        "promotion",
        start_time=begun,
        attributes={
            "tritonpipe.promotion": event.promotion,
            "tritonpipe.model": event.model,
            "tritonpipe.wish": event.wish,
            "tritonpipe.outcome": event.outcome,
        },
    )
    at = begun
    for stage, seconds in event.stages.items():
        span = tracer.start_span(stage, context=set_span_in_context(root), start_time=at)
        at += int(seconds * _NANOSECONDS)
        span.end(end_time=at)
    if event.message:
        root.set_status(Status(StatusCode.ERROR, event.message))
    root.end(end_time=max(at, int(event.at * _NANOSECONDS)))
