"""The events of the page's stream: made once a second for all viewers, while there are any. A death
is shown at once.

Without a viewer nothing runs and nothing is read. A viewer that takes nothing costs nothing more:
it gets the latest events when it takes them, and never a queue of old ones.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from gpufc.ids import RequestId
from supervisor.dispatch.overview import OpenRequest
from supervisor.fleet.crash_store import CrashStore, CrashSummary
from supervisor.http.dashboard import snapshot
from supervisor.http.dashboard.messages import (
    EVENTS,
    Deaths,
    LogLine,
    LogLines,
    Message,
    Point,
    RequestRow,
)
from supervisor.http.edge.context import Services
from supervisor.log_files import Tail

logger = logging.getLogger(__name__)

PERIOD_S = 1.0
KEEP_POINTS = 600
"""Points of the history: ten minutes of looking."""

KEEP_ENDED_S = 120.0
MOST_ENDED = 256
"""Ended requests that a new viewer gets, for the picture of the last minutes."""

RECORDS_S = 5.0
"""The record of a death is written within this time. So long the records are read again."""

KEEP_LINES = 400
LINE = 2000
"""Characters of a line that are shown."""

LOG_BYTES = 64 * 1024
"""So much of each log's end is read first."""

_encoder = msgspec.json.Encoder()


def encoded(message: Message) -> bytes:
    """One event of the stream."""
    name = EVENTS[type(message)].encode()
    return b"event: " + name + b"\ndata: " + _encoder.encode(message) + b"\n\n"


class Channel:
    """The latest event of one kind. `version` grows with each change of it."""

    def __init__(self) -> None:
        self.version = 0
        self.event = b""
        self.message: Message | None = None

    def clear(self) -> None:
        """There is no event until the next `put`."""
        self.version, self.event, self.message = 0, b"", None

    def put(self, message: Message) -> None:
        """Replace the event, unless it is the same."""
        event = encoded(message)
        if event != self.event:
            self.event, self.message = event, message
            self.version += 1


class Feed:
    """Owned by the application. In the event loop; the files are read in a thread.

    Invariant: the task runs exactly while there are viewers.
    """

    def __init__(self, front: Services) -> None:
        self.history: deque[Point] = deque(maxlen=KEEP_POINTS)
        self.ended: deque[RequestRow] = deque(maxlen=MOST_ENDED)
        self.n_asked = 0
        """Streams that are being answered. Some have no viewer yet."""
        self._front = front
        self._open: dict[RequestId, OpenRequest] = {}
        self._channels = {name: Channel() for name in ("tick", "deaths", "limits")}
        self._keys = Channel()
        self._lines: deque[LogLine] = deque(maxlen=KEEP_LINES)
        self._n_lines = 0
        self._tail: Tail | None = None
        self._records: Sequence[CrashSummary] = ()
        self._n_losses, self._lost_at = -1, 0.0
        self._news = asyncio.Event()
        self._viewers: set[Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def n_viewers(self) -> int:
        """Open streams."""
        return len(self._viewers)

    @property
    def picture_bytes(self) -> int:
        """The size of the latest picture."""
        return len(self._channels["tick"].event)

    async def follow(
        self, *, is_admin: bool, shows: Callable[[str], bool] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The events for one viewer, from now on: what there is, then the news. Ends with `close`.

        `shows` tells which models the viewer may see; None for all.

        The caller closes the iterator when its viewer leaves.
        """
        viewer = Viewer(self, is_admin=is_admin, shows=shows)
        self._viewers.add(viewer)
        try:
            if self._task is None and not self._closed:
                self._begin()
            while not self._closed:
                coming = self._news
                if events := viewer.take():
                    yield events
                else:
                    await coming.wait()
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._rest()

    def close(self) -> None:
        """End all viewers' streams, and accept no more."""
        self._closed = True
        self._rest()
        self._wake()

    def news_for(self, *, is_admin: bool) -> Iterator[tuple[str, Channel]]:
        """The channels that a viewer may see."""
        yield from self._channels.items()
        if is_admin:
            yield "keys", self._keys

    def lines_since(self, number: int) -> tuple[int, Sequence[LogLine]]:
        """The kept lines after the first `number` ones, and how many there have been."""
        n_new = min(self._n_lines - number, len(self._lines))
        return self._n_lines, list(self._lines)[len(self._lines) - n_new :]

    def _begin(self) -> None:
        for channel in (*self._channels.values(), self._keys):
            channel.clear()  # it is of the time when the last viewer left
        self._task = asyncio.create_task(self._run())

    def _rest(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._open = {}
        self._tail = None
        self._lines.clear()

    async def _run(self) -> None:
        while True:
            try:
                self.look()
                self._wake()
                await self._read()
            except Exception:  # the boundary: the page must not hinder the service
                logger.exception("dashboard_tick_failed")
            self._wake()
            await self._rest_until_news()

    async def _rest_until_news(self) -> None:
        """Wait for the next second, or for the moment at which a worker is lost or ready."""
        before = self._health()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PERIOD_S):
                await self._front.dispatcher.wait_until(lambda: self._health() != before)

    def _health(self) -> tuple[int, str]:
        dispatcher = self._front.dispatcher
        return dispatcher.losses.n_total, dispatcher.condition().status

    def look(self) -> None:
        """Make the picture of this moment, of everything that is in memory."""
        front = self._front
        tick = snapshot.tick(front, self._just_ended())
        self.history.append(tick.point)
        self._channels["tick"].put(tick)
        self._channels["limits"].put(snapshot.limits(front))
        self._put_deaths()
        if front.keys is not None:
            self._keys.put(snapshot.keys(front.keys.listed()))

    def _just_ended(self) -> list[RequestRow]:
        now = snapshot.Clock(self._front.dispatcher.now)
        found = {one.stream.request.id: one for one in self._shown()}
        gone = [one for name, one in self._open.items() if name not in found]
        self._open = found
        rows = [snapshot.request_row(one, now) for one in gone if one.timings.ended_at is not None]
        self.ended.extend(rows)
        while self.ended and now.at - (self.ended[0].ended_at or 0.0) > KEEP_ENDED_S:
            self.ended.popleft()
        return rows

    def _shown(self) -> list[OpenRequest]:
        requests = self._front.dispatcher.open_requests()
        return [one for one, _ in zip(requests, range(snapshot.MOST_REQUESTS), strict=False)]

    def _put_deaths(self) -> None:
        dispatcher = self._front.dispatcher
        now = snapshot.Clock(dispatcher.now)
        rows = snapshot.death_rows(dispatcher.losses.latest, self._records, now)
        self._channels["deaths"].put(Deaths(rows=tuple(rows)))

    async def _read(self) -> None:
        """Everything that lies in files. They are read again when there may be news in them."""
        folder = self._front.runtime_dir
        if folder is None:
            return
        n_restarts = sum(self._front.fleet.restarts_total.values())
        n_losses = n_restarts + self._front.dispatcher.losses.n_total
        now = asyncio.get_running_loop().time()
        if n_losses != self._n_losses:
            self._n_losses, self._lost_at = n_losses, now
        if now <= self._lost_at + RECORDS_S:
            self._records = await asyncio.to_thread(CrashStore(folder).list)
            self._put_deaths()
        if any(viewer.is_admin for viewer in self._viewers):
            lines = await self._new_lines(folder)
            self._lines.extend(lines)
            self._n_lines += len(lines)

    async def _new_lines(self, folder: Path) -> list[LogLine]:
        tail = self._tail
        if tail is None:
            tail = self._tail = Tail(folder / "logs", first_bytes=LOG_BYTES)
            found = await asyncio.to_thread(tail.last, KEEP_LINES // 2)
        else:
            found = await asyncio.to_thread(tail.new)
        return [LogLine(process=name, text=text[:LINE]) for name, text in found[-KEEP_LINES:]]

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Viewer:
    """How much one viewer has got. Used by its own stream only."""

    def __init__(self, feed: Feed, *, is_admin: bool, shows: Callable[[str], bool] | None) -> None:
        self.is_admin = is_admin
        self._shows = shows
        self._feed = feed
        self._has: dict[str, int] = {}
        self._n_lines = 0

    def take(self) -> bytes:
        """The events that have changed since the last call; empty without any."""
        events = []
        for name, channel in self._feed.news_for(is_admin=self.is_admin):
            if channel.version != self._has.get(name, 0):
                self._has[name] = channel.version
                events.append(self._seen(channel))
        if self.is_admin:
            self._n_lines, lines = self._feed.lines_since(self._n_lines)
            if lines:
                events.append(encoded(LogLines(lines=tuple(lines))))
        return b"".join(events)

    def _seen(self, channel: Channel) -> bytes:
        if self._shows is None or channel.message is None:
            return channel.event
        return encoded(snapshot.shown_to(channel.message, self._shows))
