"""Durable requests over HTTP: `Idempotency-Key`, event ids, and `Last-Event-ID`.

An event's id is `TAG-POSITION`: the generation, and the place after the event. The request goes on
when its client leaves. A request that is sent again with the same key reads the same logs.
"""

import asyncio
import hashlib
import math
import re
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec
from aiohttp import web
from msgspec import Struct

from gpufc.errors import InvalidRequest, NotFound, RequestError
from supervisor.answers.whole import WholeAnswer
from supervisor.dispatch.durable import Cursor, DurableKey, DurableRequest
from supervisor.dispatch.durable_ask import DurableAsk
from supervisor.dispatch.request import GenerationRequest
from supervisor.dispatch.stream import Position, StreamEvent, Usage, Wakeup
from supervisor.http.edge.body_budget import SMALL_BYTES
from supervisor.http.edge.context import PRINCIPAL, json_response, services
from supervisor.http.edge.streams import SERVER_SENT_EVENTS, EventEncoder

KEY = "Idempotency-Key"
LAST_EVENT = "Last-Event-ID"

ENTRIES_AT_ONCE = 1024
"""A late reader takes the text in batches of so many entries, so that it does not hold up the event
loop."""

_KEY = re.compile(r"[\x20-\x7e]{1,255}")
_EVENT_ID = re.compile(r"([0-9a-f]{8})-([1-9][0-9]{0,9})(?:\.([1-9][0-9]{0,9}))?")


class Wish(Struct, frozen=True):
    """The headers of a durable request: its key, and the event to resume after. `tag` is None if
    there is no such event."""

    key: str
    tag: str | None = None
    position: Position = Position(0)


def read_headers(request: web.Request, *, streamed: bool) -> Wish | None:
    """None for an ordinary request. Raises `InvalidRequest`."""
    key, last_event = _header(request, KEY), _header(request, LAST_EVENT)
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidRequest(f"{KEY} has 1 to 255 printable ASCII characters", param=KEY)
    if last_event is None:
        return None if key is None else Wish(key)
    if key is None:
        # a new stream would give the client the beginning of the text a second time
        raise InvalidRequest(f"{LAST_EVENT} needs the {KEY} of its request", param=LAST_EVENT)
    if not streamed:
        raise InvalidRequest(f"{LAST_EVENT} needs stream: true", param=LAST_EVENT)
    found = _EVENT_ID.fullmatch(last_event)
    if found is None:
        raise InvalidRequest(f"{LAST_EVENT} is not the id of an event", param=LAST_EVENT)
    return Wish(key, found[1], Position(int(found[2]), int(found[3] or 0)))


def is_known(request: web.Request) -> bool:
    """Whether the request's key belongs to a durable request, which has a place or needs none."""
    key = request.headers.get(KEY)
    return key is not None and services(request).durable.has(
        DurableKey(request[PRINCIPAL].name, key)
    )


def _header(request: web.Request, name: str) -> str | None:
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise InvalidRequest(f"{name} may be given once", param=name)
    return values[0] if values else None


async def find_or_start(
    request: web.Request,
    wish: Wish,
    dialect: str,
    body: Struct,
    accept: Callable[[], GenerationRequest],
) -> DurableRequest:
    """The durable request of that key with an equal body in an equal dialect, or else a new one.

    `accept` makes the new one. Raises the errors of `accept` and `Dispatcher.submit`,
    `Overloaded` for too many durable requests, and `InvalidRequest` for another request's key or
    an unknown stream's event.
    """
    front, principal = services(request), request[PRINCIPAL]
    store = front.durable
    key = DurableKey(principal.name, wish.key)
    if (request.content_length or SMALL_BYTES + 1) > SMALL_BYTES:
        n_bytes, digest = await asyncio.to_thread(_digest, dialect, body)
    else:
        n_bytes, digest = _digest(dialect, body)
    found = store.find(key, digest)

    def require_room(wanted: GenerationRequest) -> None:
        try:
            store.require_room(key.principal, n_bytes, wanted.n_sequences)
            front.dispatcher.require_durable_share(wanted.model)
        except RequestError as err:
            front.dispatcher.ledger.rejected(err, wanted.model)
            raise

    def start(wanted: GenerationRequest) -> DurableRequest:
        return store.add(key, digest, n_bytes, front.submit(wanted, principal))

    starts = wish.tag is None
    # the text of a request that plugins see is not what its tokens say
    if found is None and front.cells is not None and front.hooks is None:
        scope = principal.cache_scope
        found = await front.cells.find_or_start(
            DurableAsk(key, digest, n_bytes, scope, accept, require_room, start, starts)
        )
    if wish.tag is not None and (found is None or not found.has_given(wish.tag, wish.position)):
        raise InvalidRequest("The stream of this event is not known any more", param=LAST_EVENT)
    if found is not None:
        if found.lacks_reading:  # `cells` may have taken it over while this client waited
            found.read_as(accept().reading)
        return found
    wanted = accept()
    require_room(wanted)
    return start(wanted)


def _digest(dialect: str, body: Struct) -> tuple[int, bytes]:
    """The size of a body as JSON, and a hash that equal bodies of one dialect share."""
    encoded = msgspec.json.encode(body, order="sorted")
    named = dialect.encode() + b"\0"
    return len(encoded), hashlib.sha256(named + encoded).digest()


async def delete_request(request: web.Request) -> web.Response:
    """`DELETE /v1/requests`: end the durable request of the key, or forget its answer."""
    wish = read_headers(request, streamed=False)
    if wish is None:
        raise InvalidRequest(f"This needs the {KEY} of a durable request", param=KEY)
    front, key = services(request), DurableKey(request[PRINCIPAL].name, wish.key)
    is_known = front.durable.delete(key)
    if front.cells is not None:
        is_known = await front.cells.forget(key, is_here=is_known)
    if not is_known:
        raise NotFound(f"There is no durable request with this {KEY}", param=KEY)
    return json_response({"object": "durable_request", "deleted": True})


class DurableReader:
    """One client's reading of a durable request, as a context. Implements `streams.EventSource`."""

    def __init__(self, request: DurableRequest, position: Position) -> None:
        """Raises `InvalidRequest` for a position that no reader can have been given."""
        self.request = request
        self.cursor = Cursor(request, position)
        self._wakeup = Wakeup()
        self._wants_all = False

    def __enter__(self) -> Self:
        self.request.watch(self._changed)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.request.unwatch(self._changed)
        self._wakeup.rest()

    @property
    def done(self) -> bool:
        """Whether everything was read, and no error is left to be raised."""
        if self.cursor.is_closed:
            return True
        ended = self.request.is_told and not self.cursor.has_news
        return ended and self.request.stream.error is None

    @property
    def fingerprint(self) -> str | None:
        """The model's fingerprint, once a worker has loaded it."""
        return self.request.fingerprint

    @property
    def usage(self) -> Usage:
        """The tokens so far; complete when `done`."""
        return self.request.stream.usage

    async def next(self, timeout_s: float) -> list[StreamEvent] | None:
        """As `ResponseStream.next`, with a position in each event."""
        deadline = None
        while True:
            if not self.cursor.has_news:
                if self.request.is_told:
                    break
                deadline = deadline or self._wakeup.after(timeout_s)
                await self._wakeup.wait_until(deadline)
                if not self.cursor.has_news:
                    break
            if events := self.cursor.take(ENTRIES_AT_ONCE):
                return events
            await asyncio.sleep(0)
        if not self.request.is_told:
            return None
        if self.request.stream.error is not None and not self.cursor.is_closed:
            raise self.request.stream.error.again()
        return []

    async def complete(self) -> list[WholeAnswer]:
        """As `ResponseStream.complete`."""
        self._wants_all = True
        while not self.request.is_told:
            await self._wakeup.wait_until(math.inf)
        return self.request.stream.answers()

    def _changed(self) -> None:
        if not self._wants_all or self.request.is_told:
            self._wakeup.wake()


def numbered(encoder: EventEncoder, reader: DurableReader) -> EventEncoder:
    """The encoder with ids in its events, where its format has a place for them.

    Raises `InvalidRequest` for a reader that resumes without: no client was given such a position.
    """
    if encoder.CONTENT_TYPE == SERVER_SENT_EVENTS:
        return NumberedEvents(encoder, reader)
    if reader.cursor.known:
        raise InvalidRequest("The events of this stream have no ids", param=LAST_EVENT)
    return encoder


class NumberedEvents:
    """Another encoder's events with ids. Implements `streams.EventEncoder`.

    Each part's last event gets the id of the position after the part.
    """

    def __init__(self, encoder: EventEncoder, reader: DurableReader) -> None:
        self.CONTENT_TYPE = encoder.CONTENT_TYPE
        self.END = encoder.END
        self._encoder = encoder
        self._reader = reader
        encoder.events(reader.cursor.known)  # the client has these; only the state is wanted

    def events(self, events: list[StreamEvent]) -> bytes:
        numbered: list[bytes] = []
        for event in events:
            written = self._encoder.events([event])
            if written and event.position is not None:
                last = written.rfind(b"\n\n", 0, -2) + 2 if b"\n\n" in written[:-2] else 0
                numbered += (written[:last], self._id(event.position), written[last:])
        return b"".join(numbered)

    def waiting(self) -> bytes:
        return self._encoder.waiting()

    def closing(self, usage: Usage) -> bytes:
        if self._reader.cursor.is_closed:
            return self.END
        written = self._encoder.closing(usage)
        return self._closing_id() + written if written else b""

    def error(self, error: RequestError) -> bytes:
        written = self._encoder.error(error)
        # another error is one of this connection: the request has a different end, or none yet
        is_its_end = error.kept is not None and error.kept is self._reader.request.stream.error
        is_its_end = is_its_end and not self._reader.request.has_moved
        return self._closing_id() + written if is_its_end else written

    def _closing_id(self) -> bytes:
        return self._id(self._reader.request.closing)

    def _id(self, position: Position) -> bytes:
        return f"id: {self._reader.request.tag}-{_written(position)}\n".encode()


def _written(position: Position) -> str:
    """A position as it stands in an event's id: 7, or 7.2 with two parts of the eighth entry."""
    return f"{position.marks}.{position.parts}" if position.parts else str(position.marks)
