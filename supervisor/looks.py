"""A look that is taken again and again for as long as the front runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

logger = logging.getLogger(__name__)


async def repeat(name: str, look: Callable[[], Awaitable[None]], pause_s: float) -> NoReturn:
    """Take `look` now and after each pause, for ever.

    The boundary of a task: what a look raises is logged once in a row, and the next look is taken
    all the same.
    """
    told = ""
    while True:
        try:
            await look()
        except Exception as err:  # the boundary
            if repr(err) != told:
                logger.exception("look_failed name=%r", name)
            told = repr(err)
        else:
            told = ""
        await asyncio.sleep(pause_s)
