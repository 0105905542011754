"""Carries out a workload: clients begin conversations until a bound is reached.

A closed loop has `streams` clients, each with one request at a time. An open loop begins
conversations at their arrival times, however many are running. None begins after `duration_s`, and
running ones may end within `grace_s` more, so a run always ends by itself.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any

import aiohttp
from msgspec import Meta, Struct, structs

from supervisor.bench import client
from supervisor.bench.client import Target
from supervisor.bench.outcome import Failure, Outcome
from supervisor.bench.workload import Conversation, Workload, arrivals, conversation

Progress = Callable[[Outcome], None]
"""Called at the end of each measured request."""

WARM_UP_TOKENS = 8


class Bounds(Struct, frozen=True, kw_only=True):
    """The bounds of a run. `requests` counts conversations, each with one request for each turn."""

    streams: Annotated[int, Meta(ge=1)] = 8
    requests: Annotated[int, Meta(ge=1)] | None = None
    duration_s: Annotated[float, Meta(gt=0.0)] | None = None
    warm_up: Annotated[int, Meta(ge=0)] = 2
    grace_s: Annotated[float, Meta(ge=0.0)] = 120.0


class Run(Struct, frozen=True, kw_only=True):
    """The outcomes of a run. `client_cpu_s` is the load generator's own processor time."""

    outcomes: list[Outcome]
    client_cpu_s: float


async def run(
    target: Target,
    workload: Workload,
    bounds: Bounds,
    on_end: Progress = lambda _: None,
) -> Run:
    """Warm up, measure, and return every begun request in order of beginning.

    Raises `ValueError` for a run without an end.
    """
    if bounds.requests is None and bounds.duration_s is None:
        raise ValueError("neither a number of requests nor a duration")
    async with client.session(target.key) as http:
        await _warm_up(http, target, workload, bounds)
        load = Load(http, target, workload, on_end)
        cpu = time.process_time()
        await _within(bounds, _open(load, bounds) if workload.rate else _closed(load, bounds))
        return Run(outcomes=load.outcomes, client_cpu_s=time.process_time() - cpu)


class Load:
    """Runs conversations of one workload. `outcomes` has all requests begun so far."""

    def __init__(
        self, http: aiohttp.ClientSession, target: Target, workload: Workload, on_end: Progress
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.workload = workload
        self._http = http
        self._target = target
        self._on_end = on_end

    async def converse(self, asked: Conversation) -> None:
        """Run the turns of a conversation up to the first failure."""
        said: list[tuple[str, str]] = []
        for turn, text in enumerate(asked.turns):
            outcome = Outcome(
                conversation=asked.index,
                turn=turn,
                asked_tokens=asked.output_tokens,
                began_at=time.monotonic(),
            )
            self.outcomes.append(outcome)
            payload = client.body(self._target, self.workload, asked, said)
            keep = turn + 1 < len(asked.turns)
            await client.ask(self._http, self._target, payload, outcome, keep=keep)
            self._on_end(outcome)
            if outcome.failure is not None:
                return
            said.append((text, outcome.text))


async def _warm_up(
    http: aiohttp.ClientSession, target: Target, workload: Workload, bounds: Bounds
) -> None:
    """Send a few short requests that are not measured."""
    tokens = min(WARM_UP_TOKENS, workload.output_tokens)
    short = structs.replace(
        workload, output_tokens=tokens, varied=False, lengths=(), turns=1, shared_prefix=0
    )
    load = Load(http, target, short, lambda _: None)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(bounds.grace_s):
            for index in range(bounds.warm_up):
                await load.converse(conversation(short, -1 - index))


async def _within(bounds: Bounds, work: Coroutine[Any, Any, None]) -> None:
    """Wait for the running requests. Those that outlast the grace time are cancelled and recorded
    so."""
    limit = None if bounds.duration_s is None else bounds.duration_s + bounds.grace_s
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit):
            await work


async def _closed(load: Load, bounds: Bounds) -> None:
    indexes = _indexes(bounds)

    async def one_client() -> None:
        for index in indexes:
            await load.converse(conversation(load.workload, index))
            if load.outcomes[-1].failure is Failure.UNREACHABLE:
                await asyncio.sleep(0.1)  # pause: an unreachable server must not be flooded

    async with asyncio.TaskGroup() as clients:
        for _ in range(bounds.streams):
            clients.create_task(one_client())


async def _open(load: Load, bounds: Bounds) -> None:
    began = time.monotonic()
    async with asyncio.TaskGroup() as conversations:
        for index, at in zip(itertools.count(), arrivals(load.workload), strict=False):
            if _beyond(bounds, index, at):
                return
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            conversations.create_task(load.converse(conversation(load.workload, index)))


def _beyond(bounds: Bounds, index: int, elapsed_s: float) -> bool:
    if bounds.requests is not None and index >= bounds.requests:
        return True
    return bounds.duration_s is not None and elapsed_s >= bounds.duration_s


def _indexes(bounds: Bounds) -> Iterator[int]:
    """The next conversations, shared by all clients."""
    began = time.monotonic()
    for index in itertools.count():
        if _beyond(bounds, index, time.monotonic() - began):
            return
        yield index
