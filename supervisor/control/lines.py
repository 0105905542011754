"""Long answers of the control socket: one JSON object a line, until the work has ended.

A line is said again when nothing new came for a while, so that each end sees the other alive.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

REPEAT_S = 2.0
"""Far below the time after which a command takes the front for dead (`client.TIMEOUT_S`)."""

Event = dict[str, Any]


async def send_lines(request: web.Request, events: AsyncIterator[Event]) -> web.StreamResponse:
    """Send each event that differs from the one before, and the last one again every `REPEAT_S`.

    A client that leaves stops the telling, not the work.
    """
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    now = asyncio.get_running_loop().time
    said, said_at = b"", now()
    async for event in _with_pauses(events):
        line = said if event is None else msgspec.json.encode(event)
        if line != said or now() - said_at >= REPEAT_S:
            said, said_at = line, now()
            await response.write(line + b"\n")
    await response.write_eof()
    return response


async def _with_pauses(events: AsyncIterator[Event]) -> AsyncIterator[Event | None]:
    """The events, and None whenever none has come for `REPEAT_S`."""
    while True:
        coming = asyncio.ensure_future(anext(events, None))
        try:
            while not (await asyncio.wait({coming}, timeout=REPEAT_S))[0]:
                yield None
        finally:
            coming.cancel()
        event = coming.result()
        if event is None:
            return
        yield event
