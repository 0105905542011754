"""Sending a response stream, in the dialect of its encoder.

Headers go out with the first event, or after `first_byte_s` of waiting. An error before that is an
ordinary answer; after it, an event of the stream. A silent stream is kept alive, also one whose
dialect writes nothing for the parts that come. Every stream ends with its dialect's last words.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from aiohttp import web

from gpufc.config import LimitsConfig
from gpufc.errors import RequestError
from supervisor.dispatch.stream import StreamEvent, Usage
from supervisor.http.edge.connection import BoundedHandler
from supervisor.http.edge.errors import from_exception

SERVER_SENT_EVENTS = "text/event-stream; charset=utf-8"
HEADERS = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}
COMMENT = b": waiting\n\n"


class EventStream(web.StreamResponse):
    """Its headers go out with its first bytes, in one packet."""

    _send_headers_immediately = False  # as aiohttp's own `Response` has it


class EventSource(Protocol):
    """One reader's events (`ResponseStream`, `DurableReader`)."""

    @property
    def done(self) -> bool:
        """Whether everything has been read, the end included."""
        ...

    @property
    def usage(self) -> Usage:
        """Complete when `done`."""
        ...

    async def next(self, timeout_s: float) -> list[StreamEvent] | None:
        """New events; None after `timeout_s` without any. Raises the request's `RequestError`."""
        ...


class EventEncoder(Protocol):
    """Writes one stream's events in one dialect, each with its blank line at the end.

    Its state is a function of the parts it has written, and of `waiting` where a dialect's stream
    begins with an event of its own. `closing` and `error` end with `END`.
    """

    CONTENT_TYPE: str
    END: bytes

    def events(self, events: list[StreamEvent]) -> bytes:
        """The parts that choices gained. Called for every step: the hot path."""
        ...

    def waiting(self) -> bytes:
        """What keeps a silent stream alive: an event, or a comment, as the dialect's clients need
        it."""
        ...

    def closing(self, usage: Usage) -> bytes:
        """The events after the last part."""
        ...

    def error(self, error: RequestError) -> bytes:
        """The end of a stream that cannot be finished."""
        ...


async def send_stream(
    request: web.Request,
    stream: EventSource,
    encoder: EventEncoder,
    limits: LimitsConfig,
    headers: Mapping[str, str],
    note: Callable[[], str] = lambda: "",
) -> web.StreamResponse:
    """Send everything, with further `headers`. Raises a `RequestError` that comes before them.

    `note` says what a silent stream waits for. It stands in comments, where the dialect has them.
    While a client does not read, its text accumulates in the log. The call is cancelled when the
    client leaves; the caller decides about the request.
    """
    clock = asyncio.get_running_loop().time
    due = clock() + limits.first_byte_s
    events = await stream.next(limits.first_byte_s)
    response = EventStream(headers={"Content-Type": encoder.CONTENT_TYPE, **HEADERS, **headers})
    await response.prepare(request)
    try:
        with _kept_alive(request, lambda: response.write(encoder.waiting())):
            while not stream.done:
                written = b"" if events is None else encoder.events(events)
                if events is None or (not written and clock() >= due):
                    written = _noted(encoder.waiting(), note())
                await response.write(written)
                now = clock()
                if written:
                    due = now + limits.keepalive_comment_s
                events = await stream.next(due - now)
        end = encoder.events(events or []) + encoder.closing(stream.usage)
    except ConnectionError:
        raise
    except Exception as exc:  # the request boundary: the headers are out, so the stream ends here
        end = encoder.error(from_exception(exc, request))
    await response.write_eof(end)
    return response


def _noted(waiting: bytes, note: str) -> bytes:
    """A keep-alive with a note in it, if it is a comment and there is one."""
    if not note or not waiting.startswith(b":"):
        return waiting
    return f": {' '.join(note.split())}\n\n".encode()


@contextmanager
def _kept_alive(request: web.Request, send: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """Lets the connection keep its stream alive, to find out whether its client still reads."""
    connection = request.protocol
    if not isinstance(connection, BoundedHandler):
        yield
        return
    connection.keeps_alive_with(send)
    try:
        yield
    finally:
        connection.keeps_alive_with(None)
