"""One cell of the fault matrix: its requests, the moment of its fault, and whether it hit."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.chaos import operation, strike
from tests.chaos.faults import Fault
from tests.chaos.history import History, check, check_ended
from tests.chaos.load import Ask, begin, pursue, run_ask
from tests.chaos.moments import AFTER_A_DEATH, REPLACING, Moment
from tests.chaos.operation import Operation
from tests.chaos.plan import Plan, World
from tests.chaos.records import Records
from tests.chaos.rig import Missed, Rig, generated, occupancy, send, survivors, worker
from tests.chaos.strike import Strike

STOP_S = 30.0
IDLE_S = 60.0
"""A service is at rest again after a cell within this time, else the cell is a failure."""
N_BEFORE_DRAIN = 4
TYPED = frozenset({"engine_unavailable", "engine_crashed"})
"""What a request may end with when its model cannot be loaded any more."""


class Cell(Struct, frozen=True):
    """One fault at one moment of a stream, or of an answer in one piece."""

    fault: Fault
    moment: Moment
    streamed: bool

    @property
    def name(self) -> str:
        return f"{self.fault.name} × {self.moment} × {'stream' if self.streamed else 'whole'}"


class Play:
    """One try at one cell. While the file `marker` is missing, the next load goes wrong."""

    def __init__(
        self, one: Rig, world: World, cell: Cell, marker: Path, *, n_misses: int = 0
    ) -> None:
        self.one, self.world, self.cell, self.marker = one, world, cell, marker
        self.fault, self.moment = cell.fault, cell.moment
        self.once = one.once()
        self.plan: Plan = world.plan(
            cell.fault,
            cell.moment,
            f"{cell.name} try {n_misses}",
            self.once,
            streamed=cell.streamed,
            n_misses=n_misses,
        )
        self.records = Records(one.service.runtime.path)
        self.epoch = 0
        self.start = 0
        self.n_restarts = 0
        self.pid: int | None = None
        """Of the process that a signal has hit."""
        self.operation: Operation | None = None

    async def run(self) -> list[str]:
        """What was wrong. Raises `Missed` when the fault came at another moment than it should."""
        try:
            figures = await self.one.until_idle(IDLE_S)
        except Missed as err:  # another try would only give the service more time
            return [f"before the fault: {err}"]
        self.epoch, self.start = worker(figures)["epoch"], generated(figures)
        self.n_restarts = worker(figures)["restarts"]
        self.operation = self._operation(worker(figures)["model_path"])
        if self.moment is Moment.DRAIN:
            return await self._drain()
        try:
            wrong = self._judge(await self._histories())
        finally:
            ended = await self.operation.end() if self.operation is not None else None
        wrong += self._judge_operation(ended)
        wrong += await (self._mended() if self.fault.unloadable else self._serves())
        return wrong + await self._deaths() + self._not_met()

    # requests

    async def _histories(self) -> list[History]:
        return await (self._idle() if self.moment is Moment.IDLE else self._under_way())

    async def _idle(self) -> list[History]:
        """The fault, then a request."""
        one, history = self.one, begin("after", self.plan.ask)
        self.pid = worker(await one.figures())["pid"]
        send(self.pid, self.fault.number or 0)
        if not self.fault.hangs and not self.fault.pauses:
            await one.until(lambda now: worker(now)["epoch"] > self.epoch, "a death", strike.HIT_S)
        async with running(self._pursue(history)) as (task,):
            if self.fault.pauses:
                await self._strike().pause(self.pid, history)
            return [await task]

    async def _under_way(self) -> list[History]:
        """The stream under test, with the streams that its moment needs."""
        history = begin("under test", self.plan.ask)
        async with running(*self._asked(self.plan.fillers, "filler")) as fillers:
            if fillers:
                await self.one.until(lambda now: occupancy(now)[0] == len(fillers), "all run")
            self._spoil()
            beside = self._asked(self.plan.beside, "beside")
            async with running(self._pursue(history), *beside) as tasks:
                if self.fault.outside:
                    self.pid = await self._strike().hit(history, self.operation)
                return await asyncio.gather(*fillers, *tasks)

    async def _drain(self) -> list[str]:
        """A stop is asked for while streams run; then the fault; all streams end as they should."""
        one, history = self.one, begin("under test", self.plan.ask)
        children = one.service.front.children(recursive=True)
        beside = self._asked(self.plan.beside, "beside")
        async with running(self._pursue(history), *beside) as tasks:
            await one.until(lambda now: generated(now) - self.start >= N_BEFORE_DRAIN, "tokens")
            one.service.process.send_signal(signal.SIGTERM)
            if self.fault.outside:
                self.pid = await self._strike().hit(history)
            wrong = self._judge(await asyncio.gather(*tasks))
        await asyncio.to_thread(one.service.process.wait, STOP_S)
        if one.service.process.returncode != 0:
            wrong.append(f"the front ended with {one.service.process.returncode}")
        wrong += await asyncio.to_thread(survivors, children)
        return wrong + await self._deaths() + self._not_met()

    def _asked(self, asks: tuple[Ask, ...], name: str) -> list[Coroutine[Any, Any, History]]:
        one = self.one
        return [
            run_ask(one.session, one.url, ask, f"{name} {number}")
            for number, ask in enumerate(asks)
        ]

    def _pursue(self, history: History) -> Coroutine[Any, Any, History]:
        return pursue(self.one.session, self.one.url, self.plan.ask, history)

    def _strike(self) -> Strike:
        return Strike(
            self.one, self.fault, self.moment, self.plan, epoch=self.epoch, start=self.start
        )

    def _operation(self, model_path: str | None) -> Operation | None:
        if self.moment is Moment.RESTART:
            return operation.restart(self.one)
        if self.moment in REPLACING:
            return operation.swap(self.one, self.world.other_model(model_path))
        return None

    def _spoil(self) -> None:
        """Let the next load go wrong, where the service's script says so."""
        if self.fault.unloadable or (self.moment is Moment.LOADING and not self.fault.outside):
            self.world.spoil(self.marker)

    # verdicts

    def _judge(self, histories: list[History]) -> list[str]:
        return [
            f"{history.name}: {item}"
            for history in histories
            for item in (
                check_ended(history, TYPED)
                if self.fault.unloadable
                else check(history, [other for other in histories if other is not history])
            )
        ]

    def _judge_operation(self, event: str | None) -> list[str]:
        """Only a new worker that dies lets a replacement fail."""
        expected = None if self.operation is None else "done"
        if self.moment is Moment.CANDIDATE and not self.fault.survived:
            expected = "failed"
        return [] if event == expected else [f"the replacement ended with {event!r}"]

    async def _serves(self) -> list[str]:
        """A later epoch serves; one that took as many restarts as it should, where nothing may have
        been killed. (Candidates that never served have epochs, too.)"""
        is_new = not self.fault.survived or self.moment in AFTER_A_DEATH | REPLACING
        if self.moment is Moment.CANDIDATE and not self.fault.survived:
            is_new = False
        row = await self.one.until_ready(self.epoch if is_new else self.epoch - 1, strike.HIT_S)
        n_restarts = row["restarts"] - self.n_restarts
        if not is_new or self.fault.survived:
            return [] if n_restarts == is_new else [f"{n_restarts} restarts: {row['last_exit']}"]
        return []

    async def _mended(self) -> list[str]:
        """The place is given up until an operator restarts it; then a later epoch serves."""
        one = self.one
        found = await one.until(lambda now: worker(now)["state"] == "failed", "failed")
        wrong = [] if "load_failed" in worker(found)["detail"] else [worker(found)["detail"]]
        self.world.mend()
        await asyncio.to_thread(lambda: list(one.service.control.restart(None, now=False)))
        await one.until_ready(self.epoch, strike.HIT_S)
        history = await run_ask(one.session, one.url, self.plan.ask, "afterwards")
        return wrong + [f"{history.name}: {item}" for item in check(history)]

    async def _deaths(self) -> list[str]:
        """The flight recorder has the death that the fault must bring, and no other."""
        earlier = int(self.moment in AFTER_A_DEATH)
        if self.fault.survived:
            found = await self.records.at_least(earlier)
            return [f"it died: {record.reason}" for record in found[earlier:]]
        if self.moment in REPLACING and self.fault.hangs:
            return []  # replaced before the watchdog could call it hung
        after = self.epoch + earlier - 1
        wrong = await self.records.explained(self.fault, pid=self.pid, after=after)
        return [] if wrong is None else [wrong]

    def _not_met(self) -> list[str]:
        if self.fault.outside:
            return []
        met = self.marker if self.moment is Moment.LOADING else self.once
        return [] if met.exists() else ["the directive was not met"]


@contextlib.asynccontextmanager
async def running(
    *requests: Coroutine[Any, Any, History],
) -> AsyncIterator[list[asyncio.Task[History]]]:
    """Requests that run from here on, and are given up when the block is left."""
    tasks = [asyncio.create_task(request) for request in requests]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
