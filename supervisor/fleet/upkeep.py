"""What a place needs unasked: recycling and a hot spare. Each runs until it is cancelled."""

import asyncio
import logging
import time

from gpufc.errors import RequestError
from supervisor.fleet.recycling import LOOK_S, Recycler, anonymous_bytes
from supervisor.fleet.replacement_rules import CandidateFailed
from supervisor.fleet.replacer import Replacer

logger = logging.getLogger(__name__)

HOT_BACKOFF_S = 60.0
"""From a hot spare that could not be loaded to the next attempt."""


async def recycle(replacer: Replacer, growth_bytes: int) -> None:
    """Replace a place's worker whenever it has grown too much; 0: never."""
    place, recycler = replacer.place, Recycler(growth_bytes)
    while growth_bytes:
        await asyncio.sleep(LOOK_S)
        row = place.runner.status()
        if not place.has_worker or place.is_busy or row.pid is None:
            continue
        n_bytes = anonymous_bytes(row.pid)
        if n_bytes is None or not recycler.look(row.epoch, n_bytes, time.monotonic()):
            continue
        logger.warning("recycling worker=%s anonymous_bytes=%d", place.spec.name, n_bytes)
        try:
            await replacer.recycle()
        except RequestError as err:
            logger.warning("not_recycled worker=%s: %s", place.spec.name, err)


async def keep_hot(replacer: Replacer, delay_s: float) -> None:
    """Keep a loaded candidate in the place.

    `delay_s` passes after each change of the place before the next spare is loaded.
    """
    place = replacer.place
    while True:
        await asyncio.sleep(delay_s)
        seen = place.n_changes
        try:
            await replacer.keep_hot()
        except CandidateFailed as err:
            logger.warning("no_hot_spare worker=%s: %s", place.spec.name, err)
            await asyncio.sleep(HOT_BACKOFF_S)
        else:
            await place.wait_changed(seen)
