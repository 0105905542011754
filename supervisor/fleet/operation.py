"""A restart or a swap that has begun: it goes on without its caller, and can be followed."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from gpufc.errors import Overloaded, RequestError
from gpufc.ids import WorkerName
from supervisor.fleet.port import OnReplacement, Replacement

logger = logging.getLogger(__name__)

Work = Callable[[OnReplacement], Coroutine[Any, Any, None]]


class Operation:
    """A restart or a swap that has begun. Any number of callers may follow it. In the event loop.

    Its outcome stays known to every holder of the object.
    """

    def __init__(self, name: str, work: Work) -> None:
        self.name = name
        self._latest: dict[WorkerName, Replacement] = {}
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(self._run(work), name=name)

    async def _run(self, work: Work) -> None:
        logger.info("%s begun", self.name)
        try:
            await work(self._told)
        except RequestError as err:
            logger.warning("%s failed: %s", self.name, err)
            raise
        logger.info("%s done", self.name)

    def _told(self, progress: Replacement) -> None:
        self._latest[progress.worker] = progress
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def follow(self) -> AsyncIterator[Replacement]:
        """The latest progress of each worker, until the operation ends. Raises as `wait`.

        A caller that is cancelled stops nothing.
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
        """Wait for the end. Raises the operation's own error, or `Overloaded` if the front stopped
        before the end. A caller that is cancelled stops nothing."""
        await asyncio.wait({self.task})
        if self.task.cancelled():
            raise Overloaded(f"{self.name}: the server is stopping", retry_after_s=5.0)
        self.task.result()
