"""Puts a running front's socket and token back into a runtime folder that was made anew."""

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web

from supervisor.control import server
from supervisor.runtime_dir import RuntimeDir

logger = logging.getLogger(__name__)

LOOK_S = 5.0


async def keep(
    runtime: RuntimeDir,
    runner: web.AppRunner,
    restore_token: Callable[[], None],
    look_s: float = LOOK_S,
) -> None:
    """Look every `look_s` seconds, until cancelled. `runner` serves the control socket."""
    told = ""
    while True:
        await asyncio.sleep(look_s)
        try:
            await look(runtime, runner, restore_token)
            told = ""
        except OSError as err:
            if str(err) != told:  # once, not at each look
                logger.error("control_socket_not_made: %s", err)
            told = str(err)


async def look(
    runtime: RuntimeDir, runner: web.AppRunner, restore_token: Callable[[], None]
) -> None:
    """Make the folder, its socket and its token anew where they have vanished. Raises `OSError`."""
    if not runtime.is_held:  # another front has taken over
        return
    runtime.restore()
    if not runtime.control_socket.exists():
        await server.bind(runner, runtime.control_socket)
        logger.warning("control_socket_made_anew path=%s", runtime.control_socket)
    restore_token()
