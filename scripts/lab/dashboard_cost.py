"""The dashboard's cost to the front: processor time of one picture, which is made once a second.

    python -m scripts.lab.dashboard_cost

The front is whole but for its worker, which is the tests' own: its streams are open and gain no
tokens meanwhile. The time includes the encoding. Each further viewer costs one write.
"""

import asyncio
import time
from statistics import median

from supervisor.dispatch.request import ANONYMOUS
from supervisor.http.dashboard.handlers import FEED
from tests.supervisor.dispatch.fakes import request, until
from tests.supervisor.http.conftest import running

STREAMS = (0, 16, 128, 1024)
TOKENS = 40
PICTURES = 60


async def measured(n_streams: int) -> tuple[float, int]:
    """The median in milliseconds of a picture with so many streams, and its bytes."""
    async with running(slots=2048, queue=4096) as service:
        worker = service.fleet.start_worker(auto=False)
        worker.n_tokens = 10 * TOKENS
        for number in range(n_streams):
            service.dispatcher.submit(request(name=f"request {number}"), ANONYMOUS)
        await until(lambda: len(worker.active) == n_streams)
        for _ in range(TOKENS if n_streams else 0):
            worker.step()
        feed = service.app[FEED]
        times = []
        for _ in range(PICTURES):
            began = time.thread_time()
            feed.look()
            times.append(1000 * (time.thread_time() - began))
        return median(times), feed.picture_bytes


async def main() -> None:
    print("| open streams | processor ms a second | bytes |\n| ---: | ---: | ---: |")
    for n_streams in STREAMS:
        ms, size = await measured(n_streams)
        print(f"| {n_streams:,} | {ms:.2f} | {size:,} |")


if __name__ == "__main__":
    asyncio.run(main())
