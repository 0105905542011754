"""Streams a long answer of the control socket: one JSON object a line, until the work has ended.

The last line is repeated in silent periods, so that each end sees that the other is alive.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

REPEAT_S = 2.0
"""Far below the silence after which a command gives the front up (`client.TIMEOUT_S`)."""

Event = dict[str, Any]


async def send_lines(request: web.Request, events: AsyncIterator[Event]) -> web.StreamResponse:
    """Send each new event, and the last one again every `REPEAT_S`.

    A client that leaves stops the stream, not the work.
    """
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    with contextlib.suppress(ConnectionError):  # many commands leave with their last line
        await response.prepare(request)
        await _send(response, events)
        await response.write_eof()
    return response


async def _send(response: web.StreamResponse, events: AsyncIterator[Event]) -> None:
    now = asyncio.get_running_loop().time
    said, said_at = b"", now()
    async for event in _with_pauses(events):
        line = said if event is None else msgspec.json.encode(event)
        if line != said or now() - said_at >= REPEAT_S:
            said, said_at = line, now()
            await response.write(line + b"\n")


async def _with_pauses(events: AsyncIterator[Event]) -> AsyncIterator[Event | None]:
    """Yield events, and None whenever `REPEAT_S` pass without one."""
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
