"""What metrics cost a front: for each token, and for each scrape.

    python -m scripts.lab.metrics_cost

*Tokens*: the counters and durations that a step of so many sequences writes, as dispatch does it, a
token for each sequence. A loop without them is taken off. *Scrapes*: `GET /metrics` of a front with
so many workers, in two parts: the figures are collected in the event loop, the text is made in a
thread. All are processor time; the medians of several rounds.
"""

import asyncio
import time
from collections.abc import Callable
from statistics import median

from msgspec import structs

from gpufc.ids import WorkerName
from gpufc.protocol import EngineStatus
from supervisor.dispatch.ledger import Ledger
from supervisor.http.edge.context import SERVICES
from supervisor.http.service.metrics import exposition_of, figures_of
from tests.supervisor.dispatch.fakes import MODEL, worker_status
from tests.supervisor.http.conftest import running

SEQUENCES = (1, 10, 64, 256)
WORKERS = (1, 8, 64)
N_TOKENS = 200_000
N_SCRAPES = 100
ROUNDS = 5
STEP_S = 0.02


def main() -> None:
    print("| sequences of a step | µs a step | ns a token | of a core at 10,000 tokens/s |")
    print("| ---: | ---: | ---: | ---: |")
    for n_sequences in SEQUENCES:
        each_s = max(0.0, steps(n_sequences, True) - steps(n_sequences, False))
        per_token = each_s / n_sequences
        print(
            f"| {n_sequences} | {1e6 * each_s:.2f} | {1e9 * per_token:.0f} |"
            f" {1e4 * per_token:.2%} |"
        )
    print("\n| workers | bytes | ms in the loop | ms in a thread | of a core, every 15 s |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for n_workers in WORKERS:
        asyncio.run(scrapes(n_workers))


def steps(n_sequences: int, is_counted: bool) -> float:
    """Processor seconds of a step's part in metrics; of the bare loops if nothing is counted."""
    ledger = Ledger().of(MODEL)
    worker = WorkerName("default-0")
    n_steps = N_TOKENS // n_sequences

    def once() -> None:
        now = 0.0
        for _ in range(n_steps):
            now += STEP_S
            if is_counted:
                ledger.generated(n_sequences, worker, now)
            for _ in range(n_sequences):
                if is_counted:
                    ledger.inter_token.add(STEP_S / 1)

    return taken(once) / n_steps


def taken(once: Callable[[], None]) -> float:
    """The median processor time of a call on this thread, in seconds."""
    times = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        once()
        times.append(time.thread_time() - began)
    return median(times)


async def scrapes(n_workers: int) -> None:
    async with running() as service:
        service.fleet.start_worker()
        for _ in range(20):
            await service.complete()
        rows = [
            structs.replace(
                worker_status(WorkerName(f"default-{no}")), engine=EngineStatus(kv_cells_used=no)
            )
            for no in range(n_workers)
        ]
        service.fleet.workers = lambda: list(rows)  # type: ignore[method-assign]
        front = service.app[SERVICES]
        figures = figures_of(front)
        body, _ = exposition_of(figures)

        def collect() -> None:
            for _ in range(N_SCRAPES):
                figures_of(front)

        def write() -> None:
            for _ in range(N_SCRAPES):
                exposition_of(figures)

        in_loop, in_thread = (taken(part) / N_SCRAPES for part in (collect, write))
        print(
            f"| {n_workers} | {len(body):,} | {1e3 * in_loop:.2f} | {1e3 * in_thread:.2f} |"
            f" {(in_loop + in_thread) / 15:.3%} |"
        )


if __name__ == "__main__":
    main()
