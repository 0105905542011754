"""Sending a response stream as server-sent events, in whatever dialect its encoder writes.

Headers go out with the first event, or after `first_byte_s` of waiting. An error before that is an
ordinary answer; after it, an event of the stream. A silent stream carries comments. A stream never
just ends.
"""

from typing import Protocol

from aiohttp import web

from gpufc.config import LimitsConfig
from gpufc.errors import RequestError
from supervisor.dispatch.stream import StreamEvent, Usage
from supervisor.http.errors import from_exception

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}
COMMENT = b": waiting\n\n"


class EventStream(web.StreamResponse):
    """Headers wait for what is written first: a packet, and a wake-up of the client, for both."""

    _send_headers_immediately = False  # as aiohttp's own `Response` has it


class EventSource(Protocol):
    """What is sent (`ResponseStream`, `DurableReader`)."""

    @property
    def done(self) -> bool:
        """Whether everything has been read, the end included."""
        ...

    @property
    def usage(self) -> Usage:
        """Whole when `done`."""
        ...

    async def next(self, timeout_s: float) -> list[StreamEvent] | None:
        """News; None after `timeout_s` without any. Raises the request's `RequestError`."""
        ...


class EventEncoder(Protocol):
    """A dialect: what its events look like, each with its blank line at the end."""

    END: bytes
    """What ends `closing` and `error`: the last words of every stream."""

    def events(self, events: list[StreamEvent]) -> bytes:
        """What the choices gained. Called for every step: the hot path."""
        ...

    def closing(self, usage: Usage) -> bytes:
        """What follows the last event."""
        ...

    def error(self, error: RequestError) -> bytes:
        """The end of a stream that cannot be finished."""
        ...


async def send_stream(
    request: web.Request, stream: EventSource, encoder: EventEncoder, limits: LimitsConfig
) -> web.StreamResponse:
    """Send everything. Raises a `RequestError` that comes before the headers.

    A client that does not read is waited for, while its text gathers in the log. Cancelled when the
    client leaves; what becomes of the request then is the caller's.
    """
    events = await stream.next(limits.first_byte_s)
    response = EventStream(headers=HEADERS)
    await response.prepare(request)
    try:
        while not stream.done:
            await response.write(COMMENT if events is None else encoder.events(events))
            events = await stream.next(limits.keepalive_comment_s)
        end = encoder.events(events or []) + encoder.closing(stream.usage)
    except ConnectionError:
        raise
    except Exception as exc:  # the request boundary: no second answer can begin, but this one ends
        end = encoder.error(from_exception(exc, request))
    await response.write_eof(end)
    return response
