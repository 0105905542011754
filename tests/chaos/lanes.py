"""Lanes: parts of one run, played at once on several services.

    parent ── part ─▶ one process for each lane ── outcome ─▶ parent

Each lane judges its own streams: clients of many services in one process would wait for each other.
A service takes a free port and a folder of its own, so that lanes share none. One lane needs no
process beside the parent.
"""

import asyncio
import contextlib
import multiprocessing
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, Self, TypeVar

from msgspec import Struct, field

P = TypeVar("P")
R = TypeVar("R")
How = Callable[[P], Coroutine[Any, Any, R]]
"""A function of a module: a lane's process imports it."""

CORES = 2
"""Processors of a lane with an engine that computes, at least. With fewer, its streams wait for
other lanes."""


class LaneFailed(Exception):
    """A lane's process has ended before its part. Its output has the reason."""


class Share(Struct, frozen=True):
    """A lane's share of a run: `n` of all, with dice of its own."""

    lane: str
    n: int
    seed: int

    def named(self, wrong: Sequence[str]) -> list[str]:
        """The violations with the name of their lane."""
        return [f"{self.lane}{line}" for line in wrong]


class Tally(Struct):
    """The outcome of a part. Each field adds up over all parts with `+`."""

    wrong: list[str] = field(default_factory=list)

    def add(self, other: Self) -> None:
        """Count in another part."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


T = TypeVar("T", bound=Tally)


def together(n_lanes: int) -> list[set[int]]:
    """The processors of lanes that share all of them."""
    return [os.sched_getaffinity(0)] * n_lanes


def apart(n_lanes: int, cores: int = CORES) -> list[set[int]]:
    """The processors of each lane: as many lanes as have `cores` of their own, at least one."""
    every = sorted(os.sched_getaffinity(0))
    n_lanes = max(1, min(n_lanes, len(every) // cores))
    size = len(every) // n_lanes
    return [set(every[at * size : (at + 1) * size]) for at in range(n_lanes)]


def shares(n: int, seed: int, n_lanes: int) -> list[Share]:
    """`n` split over lanes as evenly as possible. The first lane has the dice of a run alone."""
    n_lanes = max(1, min(n_lanes, n))
    sizes = [n // n_lanes + (number < n % n_lanes) for number in range(n_lanes)]
    names = [f"lane {number}: " if n_lanes > 1 else "" for number in range(n_lanes)]
    dice = random.Random(seed)
    seeds = [seed, *(dice.randrange(1 << 32) for _ in sizes[1:])]
    return [Share(*one) for one in zip(names, sizes, seeds, strict=True)]


def services(parts: Sequence[Share]) -> str:
    """How many services play these parts, in words."""
    return "1 service" if len(parts) == 1 else f"{len(parts)} services at once"


async def total(how: How[Share, T], parts: Sequence[Share], lanes: Sequence[set[int]]) -> T:
    """The sum of the tallies of all shares; their violations name their lanes."""
    tallies = await play(how, parts, lanes)
    for part, tally in zip(parts, tallies, strict=True):
        tally.wrong = part.named(tally.wrong)
    first, *others = tallies
    for other in others:
        first.add(other)
    return first


async def play(
    how: How[P, R],
    parts: Sequence[P],
    lanes: Sequence[set[int]],
    on_outcome: Callable[[R], None] = lambda _: None,
) -> list[R]:
    """The outcome of each part, in the order of parts. `lanes` has the processors of each lane.

    Raises `LaneFailed` where a part has raised; with one lane, the exception itself. A part that is
    cancelled ends its services.
    """
    outcomes: dict[int, R] = {}
    left = iter(enumerate(parts))

    async def lane(perform: How[P, R]) -> None:
        for number, part in left:
            outcomes[number] = await perform(part)
            on_outcome(outcomes[number])

    async def beside(cores: set[int]) -> None:
        async with _process(how, cores) as perform:
            await lane(perform)

    if min(len(lanes), len(parts)) <= 1:
        await lane(how)
    else:
        async with asyncio.TaskGroup() as group:
            for cores in lanes[: len(parts)]:
                group.create_task(beside(cores))
    return [outcomes[number] for number in range(len(parts))]


@contextlib.asynccontextmanager
async def _process(how: How[P, R], cores: set[int]) -> AsyncIterator[How[P, R]]:
    """Performs parts in a process of its own, which ends with the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, how, cores))
    process.start()
    theirs.close()

    async def perform(part: P) -> R:
        ours.send(part)
        await _readable(ours.fileno())
        try:
            outcome: R = ours.recv()
        except EOFError:
            raise LaneFailed(f"while it played {part!r:.200}") from None
        return outcome

    try:
        yield perform
    finally:
        process.terminate()
        await _readable(process.sentinel)
        process.join()
        ours.close()


async def _readable(descriptor: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)


def _serve(parent: Connection, how: How[P, R], cores: set[int]) -> None:
    """Perform parts until the parent has no more of them. The parent alone decides about Ctrl-C."""
    signal.signal(signal.SIGINT, lambda *_: None)
    os.sched_setaffinity(0, cores)
    for part in _received(parent):
        try:
            outcome = asyncio.run(until_told(how(part)))
        except asyncio.CancelledError:
            return
        parent.send(outcome)


def _received(parent: Connection) -> Iterator[Any]:
    with contextlib.suppress(EOFError):
        while True:
            yield parent.recv()


async def until_told(run: Coroutine[Any, Any, R]) -> R:
    """Let SIGTERM end the run as Ctrl-C does: its services are stopped, no process is left."""
    task = asyncio.ensure_future(run)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task
