"""What a fleet and its places need unasked. Each coroutine runs until it is cancelled."""

import asyncio
import logging
import time

from gpufc.errors import RequestError
from supervisor.fleet import events as ev
from supervisor.fleet.edge import LocalEdge
from supervisor.fleet.model_files import stamps
from supervisor.fleet.place import Place
from supervisor.fleet.recycling import LOOK_S, Recycler
from supervisor.fleet.replacement_rules import CandidateFailed
from supervisor.fleet.replacer import Replacer

logger = logging.getLogger(__name__)

HOT_BACKOFF_S = 60.0
"""From a hot spare that could not be loaded to the next attempt."""

EDGE_LOOK_S = 5.0
FILE_LOOK_S = 1.0
FILE_LOOK_LIMIT_S = 30.0
FILE_LOOK_FACTOR = 1.5
"""Pauses between looks at the files of a model that failed."""


async def look_after(edge: LocalEdge, look_s: float = EDGE_LOOK_S) -> None:
    """Make the runtime folder anew whenever it has vanished."""
    told = ""
    while True:
        await asyncio.sleep(look_s)
        try:
            edge.look_after()
        except OSError as err:
            if str(err) != told:  # once, not at each look
                logger.error("runtime_folder_not_made: %s", err)
            told = str(err)
        else:
            told = ""


async def await_model_files(place: Place, look_s: float = FILE_LOOK_S) -> None:
    """Start a failed worker again once its model's files have changed and are still.

    Two looks in a row have to find the same files: a copy may be in progress.
    """
    pause_s, seen = look_s, stamps(place.spec.config)[:0]
    while True:
        await asyncio.sleep(pause_s)
        runner = place.runner
        if place.is_busy or not runner.has_failed:
            pause_s, seen = look_s, ()
            continue
        found = await asyncio.to_thread(stamps, runner.spec.config)
        if found == runner.model_files or None in found:
            pause_s = min(FILE_LOOK_LIMIT_S, pause_s * FILE_LOOK_FACTOR)
        elif found == seen and runner.has_failed:
            logger.info("model_files_changed worker=%s: it is started again", place.spec.name)
            runner.post(ev.ModelFileChanged())
            pause_s, seen = look_s, ()
        else:
            pause_s, seen = look_s, found


async def recycle(replacer: Replacer, growth_bytes: int) -> None:
    """Replace a place's worker whenever it has grown too much; 0: never."""
    place, recycler = replacer.place, Recycler(growth_bytes)
    while growth_bytes:
        await asyncio.sleep(LOOK_S)
        row = place.runner.status()
        if not place.has_worker or place.is_busy:
            continue
        n_bytes = place.runner.anonymous_bytes()
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
