"""What `/readyz` says, asked all the time."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from msgspec import Struct, field

POLL_S = 0.005


class Answers(Struct):
    """When each answer came (monotonic), and whether it was 200."""

    times: list[float] = field(default_factory=list)
    good: list[bool] = field(default_factory=list)

    def good_after(self, start: float, end: float) -> float:
        """How long after `start` it still said 200, in seconds; looked at until `end`."""
        answers = zip(self.times, self.good, strict=True)
        return max((at - start for at, good in answers if good and start <= at < end), default=0.0)


@asynccontextmanager
async def readiness(url: str) -> AsyncIterator[Answers]:
    """Ask, on a connection of its own, while the block runs."""
    answers, over = Answers(), asyncio.Event()

    async def ask(session: aiohttp.ClientSession) -> None:
        while not over.is_set():
            async with session.get(f"{url}/readyz") as response:
                answers.times.append(time.monotonic())
                answers.good.append(response.status == 200)
            await asyncio.sleep(POLL_S)

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        group.create_task(ask(session))
        try:
            yield answers
        finally:
            over.set()
