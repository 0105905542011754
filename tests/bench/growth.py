"""Measures the memory growth of a front and its worker over many short requests.

Resident memory is read after each part of them. The result is the slope of a straight line through
the points after warm-up, when caches, pools and the heap have their size. Memory that is freed and
taken again does not count as growth.
"""

from collections.abc import Callable, Sequence
from statistics import linear_regression

from msgspec import Struct

from tests.bench.servers import Gpufc, Setting, running
from tests.bench.sink import ask

CLIENTS = 16
TOKENS = 2
N_POINTS = 20
WARM_UP_SHARE = 0.25
PER = 100_000


class Growth(Struct, frozen=True, kw_only=True):
    """Resident bytes after each of `requests`, and bytes gained for each `PER` requests."""

    requests: list[int]
    front_bytes: list[int]
    workers_bytes: list[int]
    front_slope: float
    workers_slope: float


def measure(server: Gpufc, setting: Setting, n_requests: int, say: Callable[[int], None]) -> Growth:
    """Serve `n_requests` or a few more. Raises `StartError` if one fails."""
    each = -(-n_requests // (N_POINTS * CLIENTS))
    requests, front, workers = [], [], []
    with running(server, setting) as alive:
        for point in range(1, N_POINTS + 1):
            ask(alive.url, clients=CLIENTS, requests=each, tokens=TOKENS)
            own, children = alive.memory_bytes()
            requests.append(point * each * CLIENTS)
            front.append(own)
            workers.append(children)
            say(requests[-1])
    return Growth(
        requests=requests,
        front_bytes=front,
        workers_bytes=workers,
        front_slope=slope(requests, front),
        workers_slope=slope(requests, workers),
    )


def slope(requests: Sequence[int], sizes: Sequence[int]) -> float:
    """Bytes for each `PER` requests, after warm-up."""
    start = int(len(requests) * WARM_UP_SHARE)
    return linear_regression(requests[start:], sizes[start:]).slope * PER


def lines(found: Growth) -> list[str]:
    """The figures as lines of text."""
    start = int(len(found.requests) * WARM_UP_SHARE)
    return [
        f"{name}: {sizes[start] / 2**20:.1f} MiB after {found.requests[start]:,} requests,"
        f" {sizes[-1] / 2**20:.1f} MiB after {found.requests[-1]:,}:"
        f" {per / 2**20:+.2f} MiB per {PER:,}"
        for name, sizes, per in (
            ("front", found.front_bytes, found.front_slope),
            ("worker", found.workers_bytes, found.workers_slope),
        )
    ]
