"""What is done for a place while nobody asks: recycling, and a hot spare. Runs until cancelled."""

import asyncio
import logging
import time

from gpufc.errors import RequestError
from supervisor.fleet.recycling import LOOK_S, Recycler, anonymous_bytes
from supervisor.fleet.replacement_rules import CandidateFailed
from supervisor.fleet.replacer import Replacer

logger = logging.getLogger(__name__)

HOT_BACKOFF_S = 60.0
"""A hot spare that could not be made is tried again after so long."""


async def recycle(replacer: Replacer, growth_bytes: int) -> None:
    """Replace a place's worker whenever it has grown too much; 0: never."""
    place, recycler = replacer.place, Recycler(growth_bytes)
    while growth_bytes:
        await asyncio.sleep(LOOK_S)
        life = place.runner.lifecycle
        if not place.serves or place.busy or life.pid is None:
            continue
        n_bytes = anonymous_bytes(life.pid)
        if n_bytes is None or not recycler.look(life.epoch, n_bytes, time.monotonic()):
            continue
        logger.warning("recycling worker=%s anonymous_bytes=%d", place.spec.name, n_bytes)
        try:
            await replacer.recycle()
        except RequestError as err:
            logger.warning("not_recycled worker=%s: %s", place.spec.name, err)


async def keep_hot(replacer: Replacer, delay_s: float) -> None:
    """See to it that a loaded worker waits beside the one that serves.

    `delay_s` is how long the serving one is left alone after anything has happened.
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
