"""`POST /upgrade` on the control socket: one JSON object a line, until the old front has drained.

{"event": "progress", "message": …}   for people
{"event": "serving", "pid": …}        the new front serves; what follows is the old one's drain
{"event": "done", "pid": …}           the old front ends
{"event": "failed", "message": …}     the old front serves on
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from aiohttp import web

from supervisor.handover.giver import UpgradeFailed

REPEAT_S = 2.0
"""A line is said again after that, so that both ends see the other alive."""

Event = dict[str, Any]


class UpgradableFront(Protocol):
    """See `supervisor.app.Front`."""

    async def upgrade(self, tell: Callable[[str], None]) -> int: ...
    async def wait_handed_over(self) -> None: ...


def add_upgrade(app: web.Application, front: UpgradableFront) -> None:
    """Add the route to the application of the control socket."""

    async def upgrade(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        events: asyncio.Queue[Event] = asyncio.Queue()
        # a task of its own: who hangs up stops the telling, not the work
        work = asyncio.ensure_future(_upgrade(front, events.put_nowait))
        _working.add(work)
        work.add_done_callback(_working.discard)
        event: Event = {}
        while event.get("event") not in {"done", "failed"}:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPEAT_S):
                    event = await events.get()
            if event:
                await response.write(msgspec.json.encode(event) + b"\n")
        return response

    app.router.add_post("/upgrade", upgrade)


_working: set["asyncio.Future[None]"] = set()


async def _upgrade(front: UpgradableFront, say: Callable[[Event], None]) -> None:
    try:
        pid = await front.upgrade(lambda line: say({"event": "progress", "message": line}))
    except UpgradeFailed as err:
        say({"event": "failed", "message": str(err)})
        return
    say({"event": "serving", "pid": pid})
    await front.wait_handed_over()
    say({"event": "done", "pid": pid})
