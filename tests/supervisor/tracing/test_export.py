"""Traces through OpenTelemetry's own library, into its exporter in memory."""

import pytest

from gpufc.errors import ConfigError
from supervisor.dispatch.timings import Run
from supervisor.tracing.export import Tracer
from supervisor.tracing.spans import Answer
from tests.supervisor.tracing.test_spans import ended_stream

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def test_a_missing_library_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"install `gpufc\[otel\]`"):
        Tracer("http://127.0.0.1:4318")


def test_the_client_s_trace_goes_on_with_the_replay_in_it() -> None:
    pytest.importorskip("opentelemetry.sdk.trace", reason="the extra `otel` is not installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    tracer = Tracer("http://127.0.0.1:4318", SimpleSpanProcessor(kept))
    lost = Run("default-0", 1, 0, 2.0, first_at=3.0, ended_at=5.0, was_lost=True)
    again = Run("default-0", 2, 0, 6.0, n_known=7, is_replay=True, first_at=7.0, ended_at=9.0)
    answer = Answer(
        request_id="r1",
        method="POST",
        route="/v1/completions",
        status=200,
        began=1.0,
        ended=9.0,
        traceparent=PARENT,
    )
    tracer.answered(answer, ended_stream(lost, again))
    tracer.close()
    spans = {span.name: span for span in kept.get_finished_spans()}
    assert set(spans) == {"POST /v1/completions", "queue", "run", "replay", "prefill", "decode"}
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}
    root = spans["POST /v1/completions"]
    assert spans["replay"].parent.span_id == root.context.span_id
    assert root.end_time - root.start_time == 8_000_000_000
