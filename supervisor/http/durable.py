"""Durable requests over HTTP: `Idempotency-Key`, event ids, and `Last-Event-ID`.

The id of an event is `TAG-POSITION`: which generation, and how much of it the client has once it
has the event (`dispatch/durable.py` says what positions are). A client that leaves takes nothing
with it: the request goes on, and whoever sends it again with the same key reads the same logs.
"""

import hashlib
import re
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web
from msgspec import Struct

from gpufc.errors import InvalidRequest, RequestError
from supervisor.dispatch.durable import Cursor, DurableKey, DurableRequest
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream import StreamEvent, Usage, Wakeup
from supervisor.http.context import PRINCIPAL, services
from supervisor.http.sse import EventEncoder

KEY = "Idempotency-Key"
LAST_EVENT = "Last-Event-ID"

EVENTS_AT_ONCE = 256
"""A reader who comes late to many choices gets them in parts, so that others are served between."""

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_EVENT_ID = re.compile(r"([0-9a-f]{8})-([1-9][0-9]{0,9})")


class Wish(Struct, frozen=True):
    """What the headers ask for: a durable request, and where its stream is to go on."""

    key: str
    tag: str | None
    position: int


def read_headers(request: web.Request, *, streamed: bool) -> Wish | None:
    """None for an ordinary request. Raises `InvalidRequest`."""
    key, last_event = _header(request, KEY), _header(request, LAST_EVENT)
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidRequest(f"{KEY} has 1 to 255 printable ASCII characters", param=KEY)
    if last_event is None:
        return None if key is None else Wish(key, None, 0)
    if key is None:
        # to begin again would give the client the beginning of the text a second time
        raise InvalidRequest(f"{LAST_EVENT} needs the {KEY} of its request", param=LAST_EVENT)
    if not streamed:
        raise InvalidRequest(f"{LAST_EVENT} needs stream: true", param=LAST_EVENT)
    found = _EVENT_ID.fullmatch(last_event)
    if found is None:
        raise InvalidRequest(f"{LAST_EVENT} is not the id of an event", param=LAST_EVENT)
    return Wish(key, found[1], int(found[2]))


def _header(request: web.Request, name: str) -> str | None:
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise InvalidRequest(f"{name} may be given once", param=name)
    return values[0] if values else None


def find_or_start(
    request: web.Request, wish: Wish, body: Struct, accept: Callable[[], GenerationRequest]
) -> DurableRequest:
    """The request that is meant: an equal one under the same key, or else a new one.

    `accept` makes the new one of `body`. Raises what it raises, what `Dispatcher.submit` does,
    `Overloaded` for too many, and `InvalidRequest` for a key that belongs to another request or
    an event of a stream that is not known.
    """
    front, principal = services(request), request[PRINCIPAL]
    store = front.durable
    key = DurableKey(principal.name, wish.key)
    encoded = msgspec.json.encode(body, order="sorted")
    digest = hashlib.sha256(request.path.encode() + b"\0" + encoded).digest()
    found = store.find(key, digest)
    if wish.tag is not None and (found is None or found.tag != wish.tag):
        raise InvalidRequest("The stream of this event is not known any more", param=LAST_EVENT)
    if found is not None:
        return found
    wanted = accept()
    try:
        store.require_room(len(encoded), wanted.n_sequences)
    except RequestError:
        front.dispatcher.ledger.requests.rejected += 1
        raise
    return store.add(key, digest, len(encoded), front.dispatcher.submit(wanted, principal))


class DurableReader:
    """One client's reading of a durable request, as a context. Implements `sse.EventSource`."""

    def __init__(self, request: DurableRequest, position: int = 0) -> None:
        """Raises `InvalidRequest` for a position that nobody can have been told."""
        self.request = request
        self.cursor = Cursor(request, position)
        self._wakeup = Wakeup()
        self._wants_all = False

    def __enter__(self) -> Self:
        self.request.watchers.add(self._changed)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.request.watchers.discard(self._changed)
        self._wakeup.rest()

    @property
    def done(self) -> bool:
        """Whether everything was read, and it did not end with an error yet to be told."""
        if self.cursor.is_closed:
            return True
        ended = self.request.is_over and not self.cursor.has_news
        return ended and self.request.stream.error is None

    @property
    def fingerprint(self) -> str | None:
        """The model's fingerprint, once any worker has loaded it."""
        return self.request.fingerprint

    @property
    def usage(self) -> Usage:
        """As far as it is known now; whole when `done`."""
        return self.request.stream.usage

    async def next(self, timeout_s: float) -> list[StreamEvent] | None:
        """As `ResponseStream.next`, but with positions, and begin and end of a choice apart."""
        if not self.cursor.has_news and not self.request.is_over:
            await self._wakeup.wait(timeout_s)
        if self.cursor.has_news:
            return self.cursor.take(EVENTS_AT_ONCE)
        if not self.request.is_over:
            return None
        if self.request.stream.error is not None and not self.cursor.is_closed:
            raise self.request.stream.error
        return []

    async def complete(self) -> list[str]:
        """As `ResponseStream.complete`."""
        self._wants_all = True
        while not self.request.is_over:
            await self._wakeup.wait(None)
        if self.request.stream.error is not None:
            raise self.request.stream.error
        return ["".join(log.texts) for log in self.request.stream.logs]

    def _changed(self) -> None:
        if not self._wants_all or self.request.is_over:
            self._wakeup.wake()


class NumberedEvents:
    """Puts its id before each event of another encoder. Implements `sse.EventEncoder`.

    The inner one makes at most one event of each of the reader's.
    """

    def __init__(self, encoder: EventEncoder, reader: DurableReader) -> None:
        self.END = encoder.END
        self._encoder = encoder
        self._reader = reader
        self._prefix = f"id: {reader.request.tag}-"
        # what the client has of these it has; the encoder must not open them again
        encoder.events([StreamEvent(index, "", 0, None) for index in reader.cursor.begun])

    def events(self, events: list[StreamEvent]) -> bytes:
        return b"".join(
            self._id(event.position) + frame
            for event in events
            if (frame := self._encoder.events([event]))
        )

    def closing(self, usage: Usage) -> bytes:
        if self._reader.cursor.is_closed:
            return self.END
        return self._closing_id() + self._encoder.closing(usage)

    def error(self, error: RequestError) -> bytes:
        frames = self._encoder.error(error)
        # any other error is one of this sending; the request has another end, or none yet
        return self._closing_id() + frames if error is self._reader.request.stream.error else frames

    def _closing_id(self) -> bytes:
        return self._id(self._reader.request.closing)

    def _id(self, position: int) -> bytes:
        return f"{self._prefix}{position}\n".encode()
