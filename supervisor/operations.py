"""Restarts and swaps that somebody asked for: they go on when whoever asked is gone.

One `Replacing` is one of them. Any number of people may follow it; what it came to stays known to
those who hold it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from gpufc.errors import Overloaded, RequestError
from gpufc.ids import WorkerName
from supervisor.fleet.port import OnReplacement, Replacement

logger = logging.getLogger(__name__)

Work = Callable[[OnReplacement], Coroutine[Any, Any, None]]


class Replacing:
    """A replacement that has been begun. In the event loop's thread."""

    def __init__(self, what: str, work: Work) -> None:
        self.what = what
        self._latest: dict[WorkerName, Replacement] = {}
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._run(work), name=what)

    async def _run(self, work: Work) -> None:
        logger.info("%s begun", self.what)
        try:
            await work(self._told)
        except RequestError as err:
            logger.warning("%s failed: %s", self.what, err)
            raise
        logger.info("%s done", self.what)

    def _told(self, progress: Replacement) -> None:
        self._latest[progress.worker] = progress
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self) -> AsyncIterator[Replacement]:
        """How it gets on: of each worker the latest; ends when it does. Raises as `wait`.

        Who stops following stops nothing.
        """
        seen: dict[WorkerName, Replacement] = {}
        while True:
            changed, over = self._changed, self.task.done()
            news = [told for name, told in self._latest.items() if seen.get(name) is not told]
            seen = dict(self._latest)
            for told in news:
                yield told
            if over:
                break
            waiter = asyncio.ensure_future(changed.wait())
            try:
                await asyncio.wait({waiter, self.task}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiter.cancel()
        await self.wait()

    async def wait(self) -> None:
        """Until its end. Raises what it failed with, `Overloaded` if the front stopped before it
        came to one. Whoever is cancelled here stops nothing."""
        await asyncio.wait({self.task})
        if self.task.cancelled():
            raise Overloaded(f"{self.what}: the server is stopping", retry_after_s=5.0)
        self.task.result()
