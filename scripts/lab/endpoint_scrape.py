"""What a balancer's scrapes cost a front: `/metrics/endpoint` beside `/metrics` and `/livez`.

    python -m scripts.lab.endpoint_scrape [WORKERS] [SCRAPES]

The front's routes over a fake fleet and the client run in one process, so `/livez` shows the cost
of HTTP itself. Printed is processor time for each scrape, and its share of a core at 20 a second.
"""

import asyncio
import sys
import time

from msgspec import structs

from gpufc.ids import WorkerName
from gpufc.protocol import EngineStatus
from tests.supervisor.dispatch.fakes import worker_status
from tests.supervisor.http.conftest import running

PATHS = ("/livez", "/metrics/endpoint", "/metrics")
PER_S = 20


async def measured(n_workers: int, n_scrapes: int) -> None:
    async with running() as service:
        rows = [
            structs.replace(
                worker_status(WorkerName(f"default-{no}")), engine=EngineStatus(kv_cells_used=no)
            )
            for no in range(n_workers)
        ]
        service.fleet.workers = lambda: list(rows)  # type: ignore[method-assign]
        print("| route | bytes | processor time, µs | of a core at 20/s |")
        print("| --- | --- | --- | --- |")
        for path in PATHS:
            n_bytes = len((await service.get(path)).body)
            began = time.process_time()
            for _ in range(n_scrapes):
                await service.get(path)
            each = (time.process_time() - began) / n_scrapes
            print(f"| `{path}` | {n_bytes:,} | {1e6 * each:,.0f} | {PER_S * each:.2%} |")


if __name__ == "__main__":
    numbers = [int(one) for one in sys.argv[1:3]]
    asyncio.run(measured(*(*numbers, *(1, 300)[len(numbers) :])))
