"""What is done for a place while nothing happens: recycling, and a hot spare."""

import asyncio
import logging
import time

from gpufc.errors import RequestError
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.place import CandidateFailed, Place
from supervisor.fleet.port import Replacement
from supervisor.fleet.recycling import LOOK_S, Recycler, anonymous_bytes

logger = logging.getLogger(__name__)

HOT_BACKOFF_S = 60.0
"""A hot spare that could not be made is tried again after so long."""


async def recycle(place: Place, growth_bytes: int) -> None:
    """Replace the place's worker whenever it has grown too much. Runs until cancelled."""
    if not growth_bytes:
        return
    recycler = Recycler(growth_bytes)
    while True:
        await asyncio.sleep(LOOK_S)
        life = place.runner.lifecycle
        if not place.serves or place.busy or life.pid is None:
            continue
        n_bytes = anonymous_bytes(life.pid)
        if n_bytes is None or not recycler.look(life.epoch, n_bytes, time.monotonic()):
            continue
        logger.warning("recycling worker=%s anonymous_bytes=%d", place.spec.name, n_bytes)
        try:
            await place.restart(now=False, tell=_nobody, reason=Reason.RECYCLED)
        except RequestError as err:
            logger.warning("not_recycled worker=%s: %s", place.spec.name, err)


async def keep_hot(place: Place, delay_s: float) -> None:
    """See to it that a loaded worker waits beside the one that serves. Runs until cancelled.

    `delay_s` is how long the serving one is left alone after anything has happened.
    """
    while True:
        await asyncio.sleep(delay_s)
        try:
            await place.keep_hot()
        except (CandidateFailed, RequestError) as err:
            logger.warning("no_hot_spare worker=%s: %s", place.spec.name, err)
            await asyncio.sleep(HOT_BACKOFF_S)
        else:
            await place.wait_changed()


def _nobody(_: Replacement) -> None:
    """Nobody asked, so nobody is told."""
