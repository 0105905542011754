"""A thread that waits until a worker process begins to end: see `gpufc.end_word`."""

import logging
import os
import threading
import time
from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress

from gpufc import end_word
from gpufc.end_word import Seen
from gpufc.proc_stat import stat_fields

LOOK_S = 1.0
"""The thread looks that often whether it is still wanted."""

MOST_EARLY = 20
"""A holder can wake the thread as often as it likes. After so many times in a row without an end,
the thread does not wait for it any more: it would take the front's time."""

logger = logging.getLogger(__name__)


class EndWatch:
    """Calls `on_ending` in the loop at most once, when the holder of the word `fd` begins to end.

    Without a word or a thread, because the system or the holder gives none, it never calls."""

    def __init__(self, fd: int, loop: AbstractEventLoop, on_ending: Callable[[], None]) -> None:
        self._loop = loop
        self._on_ending = on_ending
        self._wanted = True
        try:
            watch = end_word.Watch(fd)
        except OSError as err:
            logger.warning("end_not_watched: %s", err)
            return
        thread = threading.Thread(target=self._run, args=(watch,), name="end-watch", daemon=True)
        try:
            thread.start()
        except RuntimeError as err:  # the system gives no thread
            watch.close()
            logger.warning("end_not_watched: %s", err)

    def close(self) -> None:
        """Call nothing any more. The thread ends by itself."""
        self._wanted = False

    def _run(self, watch: end_word.Watch) -> None:
        seen, n_early = Seen.LIVES, 0
        while self._wanted and seen is Seen.LIVES and n_early < MOST_EARLY:
            began = time.monotonic()
            seen = watch.wait(LOOK_S)
            is_early = time.monotonic() - began < LOOK_S / 2
            n_early = n_early + 1 if is_early else 0
        watch.close()
        if n_early == MOST_EARLY:
            logger.warning("end_not_watched: its holder wakes the watch without an end")
        if seen is Seen.ENDS:
            with suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        if self._wanted:
            self._wanted = False
            self._on_ending()


def ending_status(pid: int) -> int | None:
    """The wait status of a process that begins to end and is not reaped; None while the kernel does
    not show it, and for an exit with code 0."""
    try:
        return int(stat_fields(pid)[-1]) or None
    except (OSError, IndexError, ValueError):
        return None


def new_word() -> int | None:
    """A descriptor for a word; None where that is not supported or no descriptor is free."""
    if not end_word.is_supported():
        return None
    try:
        return end_word.make()
    except OSError:
        return None


def close_word(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)
