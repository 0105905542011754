"""`POST /upgrade` on the control socket: one JSON object a line, until the new front serves.

{"event": "progress", "message": …}               text for the terminal
{"event": "serving", "pid": …, "draining": …}     the new front serves; the old one still answers
                                                  so many requests, then ends
{"event": "failed", "message": …, "serves": …}    no new front; whether the old one goes on
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from aiohttp import web

from supervisor.control.lines import Event, send_lines
from supervisor.handover.giver import UpgradeBroke, Upgraded, UpgradeFailed

logger = logging.getLogger(__name__)


class UpgradableFront(Protocol):
    """See `supervisor.operations.Operations`."""

    stopping: asyncio.Event

    async def upgrade(self, tell: Callable[[str], None]) -> Upgraded: ...


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
        if event["event"] in {"serving", "failed"}:
            return


async def _upgrade(front: UpgradableFront, say: Callable[[Event], None]) -> None:
    try:
        done = await front.upgrade(lambda line: say({"event": "progress", "message": line}))
    except UpgradeBroke as err:
        say({"event": "failed", "message": str(err), "serves": False})
    except UpgradeFailed as err:
        goes_on = "" if front.stopping.is_set() else "; the old front keeps serving"
        say({"event": "failed", "message": f"{err}{goes_on}", "serves": True})
    except Exception as err:  # the boundary: a client that follows must see an end
        logger.exception("upgrade_failed")
        message = f"unexpected {type(err).__name__}: {err}; `status` shows what runs"
        say({"event": "failed", "message": message, "serves": True})
    else:
        say({"event": "serving", "pid": done.pid, "draining": done.n_draining})
