"""`POST /upgrade` on the control socket: one JSON object a line, until the old front has drained.

{"event": "progress", "message": …}   text for the terminal
{"event": "serving", "pid": …}        the new front serves; the old one's drain follows
{"event": "done", "pid": …}           the old front ends
{"event": "failed", "message": …}     the old front serves on
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from aiohttp import web

from supervisor.control.lines import Event, send_lines
from supervisor.handover.giver import UpgradeFailed

logger = logging.getLogger(__name__)


class UpgradableFront(Protocol):
    """See `supervisor.operations.Operations`."""

    async def upgrade(self, tell: Callable[[str], None]) -> int: ...
    async def wait_handed_over(self) -> None: ...


def add_upgrade(app: web.Application, front: UpgradableFront) -> None:
    """Add the route to the control socket's application."""
    working: set[asyncio.Task[None]] = set()

    async def upgrade(request: web.Request) -> web.StreamResponse:
        events: asyncio.Queue[Event] = asyncio.Queue()
        # a task of its own: a client that leaves stops the report, not the upgrade
        work = asyncio.create_task(_upgrade(front, events.put_nowait))
        working.add(work)
        work.add_done_callback(working.discard)
        return await send_lines(request, _until_the_end(events))

    app.router.add_post("/upgrade", upgrade)


async def _until_the_end(events: "asyncio.Queue[Event]") -> AsyncIterator[Event]:
    while True:
        event = await events.get()
        yield event
        if event["event"] in {"done", "failed"}:
            return


async def _upgrade(front: UpgradableFront, say: Callable[[Event], None]) -> None:
    try:
        pid = await front.upgrade(lambda line: say({"event": "progress", "message": line}))
        say({"event": "serving", "pid": pid})
        await front.wait_handed_over()
    except UpgradeFailed as err:
        say({"event": "failed", "message": str(err)})
    except Exception as err:  # the boundary: a client that follows must see an end
        logger.exception("upgrade_failed")
        say({"event": "failed", "message": f"unexpected {type(err).__name__}: {err}"})
    else:
        say({"event": "done", "pid": pid})
