"""The access log: one line for each answered request, with its timings."""

import logging
import time

import msgspec
from aiohttp import web

from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream import ResponseStream
from supervisor.http.edge.context import PRINCIPAL, REQUEST_ID, SERVICES, STREAM, Tracer
from supervisor.http.edge.entry import CLIENT_ADDRESS
from supervisor.tracing.spans import Answer

logger = logging.getLogger("access")

MOST_CHARS = 8192
"""Of prompts that an operator wants in the log."""

_ANSWERED = "request_answered request=%s client=%s key=%s route=%s status=%d seconds=%.3f"
_GENERATED = (
    "model=%s queue_s=%.3f prompt_s=%.3f generation_s=%.3f prompt_tokens=%d cached_tokens=%d"
    " generated_tokens=%d replays=%d"
)

CLIENT_LEFT = 499
"""nginx' number for a request whose client did not wait for the answer."""


def answered(request: web.Request, status: int, began: float) -> None:
    """Log an answer that has been sent, or that no client waits for, and send its trace.

    `began` is monotonic. INFO by the configuration, else DEBUG. Neither the query nor any header is
    logged.
    """
    front = request.config_dict.get(SERVICES)
    if front is not None and front.tracer is not None and STREAM in request:
        _trace(front.tracer, request, status, began)
    wanted = front is not None and front.config.server.access_log
    level = logging.INFO if wanted else logging.DEBUG
    if not logger.isEnabledFor(level):
        return
    principal = request.get(PRINCIPAL)
    stream = request.get(STREAM)
    name = "-" if principal is None or principal.is_anonymous else principal.name
    logger.log(
        level,
        _ANSWERED if stream is None else f"{_ANSWERED} {_GENERATED}",
        *(request[REQUEST_ID], request.get(CLIENT_ADDRESS) or request.remote or "-", name),
        *(f"{request.method} {request.rel_url.raw_path}", status, time.monotonic() - began),
        *(() if stream is None else _generation(stream)),
    )


def _trace(tracer: Tracer, request: web.Request, status: int, began: float) -> None:
    resource = request.match_info.route.resource
    answer = Answer(
        request_id=request[REQUEST_ID],
        method=request.method,
        route=resource.canonical if resource else request.rel_url.raw_path,
        status=status,
        began=began,
        ended=time.monotonic(),
        traceparent=request.headers.get("traceparent", ""),
    )
    try:
        tracer.answered(answer, request[STREAM])
    except Exception:  # a fault of the library must not cost the client its answer
        logger.exception("trace_failed request=%s", answer.request_id)


def _generation(stream: ResponseStream) -> tuple[object, ...]:
    """The times and tokens of a request that generated."""
    times, usage = stream.timings, stream.usage
    return (
        *(stream.request.model, times.queue_s, times.prompt_s, times.generation_s),
        *(usage.prompt, usage.cached, usage.completion, stream.n_replays),
    )


def asked(request: web.Request, wanted: GenerationRequest) -> None:
    """Log the prompts of a request, if the operator has asked for that."""
    if request.config_dict[SERVICES].config.server.log_prompts:
        text = msgspec.json.encode(wanted.prompts).decode()
        cut = text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]}…"
        logger.info("request_prompt request=%s prompts=%s", wanted.id, cut)
