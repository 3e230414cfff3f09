"""Work that ended as a trace."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pipeline.watch.events import ENDED, STARTED, Event
from pipeline.watch.traces import traced


def spans(event: Event) -> dict[str, object]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traced(provider.get_tracer("test"), event)
    return {span.name: span for span in exporter.get_finished_spans()}


def test_stages_are_spans_of_one_trace_and_fill_it_in_order() -> None:
    stages = {"fetch": 1.0, "export": 2.0}
    event = Event(
        kind=ENDED, at=100.0, model="m", promotion="p1", outcome="promoted", seconds=3.0,
        stages=stages,
    )  # fmt: skip
    found: dict[str, object] = spans(event)
    root, fetch, export = (found[name] for name in ("promotion", "fetch", "export"))
    assert fetch.parent.span_id == root.context.span_id  # type: ignore[attr-defined]
    times = [getattr(span, end) for span in (fetch, export) for end in ("start_time", "end_time")]
    assert [t / 1e9 for t in times] == [97.0, 98.0, 98.0, 100.0]
    assert root.attributes["tritonpipe.promotion"] == "p1"  # type: ignore[attr-defined]
    assert root.status.is_ok  # type: ignore[attr-defined]


def test_a_failure_is_an_error_and_says_why() -> None:
    event = Event(kind=ENDED, at=9.0, model="m", outcome="ModelError", message="no signature")
    (root,) = spans(event).values()
    assert root.status.description == "no signature"  # type: ignore[attr-defined]


def test_only_the_end_of_work_is_a_trace() -> None:
    assert spans(Event(kind=STARTED, at=1.0, model="m")) == {}
