"""Traces on their way to a collector, by OpenTelemetry's library and its own thread."""

import logging
import time
from typing import Any

import gpufc
from gpufc.errors import ConfigError
from supervisor.dispatch.stream import ResponseStream
from supervisor.tracing.spans import ROOT, Answer, Span, root_of, spans_of

logger = logging.getLogger(__name__)

CLOSE_MS = 2000


class Tracer:
    """Sends a trace of each answered request. In the event loop; never blocks it."""

    def __init__(self, endpoint: str, processor: Any = None) -> None:
        """`endpoint` is the collector's base URL for OTLP over HTTP. Raises `ConfigError` without
        the library."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as err:
            raise ConfigError(
                "otlp_endpoint is set, and OpenTelemetry is not installed: install"
                " `gpufc[otel]`, or leave otlp_endpoint out"
            ) from err
        resource = Resource.create({"service.name": "gpufc", "service.version": gpufc.__version__})
        self._provider = TracerProvider(resource=resource)
        url = f"{endpoint.rstrip('/')}/v1/traces"
        self._provider.add_span_processor(
            processor or BatchSpanProcessor(OTLPSpanExporter(endpoint=url))
        )
        self._tracer = self._provider.get_tracer("gpufc")

    def answered(self, answer: Answer, stream: ResponseStream | None) -> None:
        """Send a request's trace."""
        from opentelemetry import trace

        offset_s = time.time() - time.monotonic()
        root = self._started(root_of(answer, stream), offset_s, _parent(answer.traceparent))
        below = trace.set_span_in_context(root)
        made: list[Any] = []
        spans = [] if stream is None else spans_of(stream, answer.ended)
        for span in spans:
            of = below if span.parent == ROOT else trace.set_span_in_context(made[span.parent])
            made.append(self._started(span, offset_s, of))
        for one, span in zip(made, spans, strict=True):
            one.end(_ns(span.end, offset_s))
        root.end(_ns(answer.ended, offset_s))

    def close(self) -> None:
        """Send what is left. Blocks for a moment at most."""
        self._provider.force_flush(CLOSE_MS)
        self._provider.shutdown()

    def _started(self, span: Span, offset_s: float, context: Any) -> Any:
        from opentelemetry.trace import Status, StatusCode

        made = self._tracer.start_span(
            span.name, context, attributes=span.attributes, start_time=_ns(span.begin, offset_s)
        )
        if span.failed:
            made.set_status(Status(StatusCode.ERROR))
        return made


def _parent(traceparent: str) -> Any:
    """The context of the client's trace; an empty one without it."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent})


def _ns(monotonic_s: float, offset_s: float) -> int:
    return round((monotonic_s + offset_s) * 1e9)
