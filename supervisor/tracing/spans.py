"""The spans of a request that has ended: queue, prefill, decode, and a run for each worker. Pure.

POST /v1/chat/completions
├── queue                    from the request to its first worker
├── run (worker, epoch)      one sequence on one worker
│   ├── prefill
│   └── decode
└── replay (worker, epoch)   the same sequence on the next worker
    ├── prefill              of the prompt and of the tokens so far
    └── decode
"""

from collections.abc import Iterator

from msgspec import Struct

from supervisor.dispatch.stream import ResponseStream
from supervisor.dispatch.timings import Run

Attributes = dict[str, str | int | float | bool]

ROOT = -1
"""The parent of the spans below the request's own."""


class Span(Struct, frozen=True):
    """Times are monotonic seconds. `parent` is an index into the same list, or `ROOT`."""

    name: str
    begin: float
    end: float
    parent: int = ROOT
    attributes: Attributes = {}
    failed: bool = False


class Answer(Struct, frozen=True, kw_only=True):
    """What the edge knows of an answered request."""

    request_id: str
    method: str
    route: str
    status: int
    began: float
    ended: float
    traceparent: str = ""
    """The client's own `traceparent` header, whose trace goes on."""


def root_of(answer: Answer, stream: ResponseStream | None) -> Span:
    """The request's own span."""
    attributes: Attributes = {
        "http.request.method": answer.method,
        "http.route": answer.route,
        "http.response.status_code": answer.status,
        "gpufc.request_id": answer.request_id,
    }
    if stream is not None:
        usage = stream.usage
        attributes |= {
            "gen_ai.request.model": stream.request.model,
            "gen_ai.usage.input_tokens": usage.prompt,
            "gen_ai.usage.output_tokens": usage.completion,
            "gpufc.cached_tokens": usage.cached,
            "gpufc.replays": stream.n_replays,
        }
    name = f"{answer.method} {answer.route}"
    return Span(
        name, answer.began, answer.ended, attributes=attributes, failed=answer.status >= 500
    )


def spans_of(stream: ResponseStream, ended: float) -> list[Span]:
    """The spans below it. A run that has not ended is cut at `ended`."""
    times = stream.timings
    end = times.ended_at or ended
    spans = [Span("queue", times.submitted_at, times.started_at or end)]
    for run in times.runs:
        spans += _run(run, end, len(spans))
    return spans


def _run(run: Run, end: float, at: int) -> Iterator[Span]:
    ended = run.ended_at or end
    first = min(run.first_at or ended, ended)
    yield Span(
        "replay" if run.is_replay else "run",
        run.sent_at,
        ended,
        attributes={
            "gpufc.worker": run.worker,
            "gpufc.epoch": run.epoch,
            "gpufc.choice": run.choice,
            "gpufc.known_tokens": run.n_known,
        },
        failed=run.was_lost,
    )
    yield Span("prefill", run.sent_at, first, at)
    if run.first_at is not None:
        yield Span("decode", first, ended, at)
