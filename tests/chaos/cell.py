"""One cell of the fault matrix: what is asked, when the fault comes, and whether it hit."""

import asyncio
import contextlib
import signal
from pathlib import Path

import aiohttp
from msgspec import Struct

from tests.chaos import moments
from tests.chaos.faults import PAUSE_S, Fault
from tests.chaos.history import History, check
from tests.chaos.load import Ask, ask_fake, begin, pursue, run_ask
from tests.chaos.moments import N_TOKENS, Moment, Setup
from tests.chaos.rig import (
    Figures,
    Missed,
    Rig,
    generated,
    is_ready,
    occupancy,
    send,
    survivors,
    worker,
)

HIT_S = 60.0
"""A fault after which no later epoch serves within this time did not hit."""
N_DRAINING = 120


class Cell(Struct, frozen=True):
    """One fault at one moment of a stream, or of an answer in one piece."""

    fault: Fault
    moment: Moment
    streamed: bool

    @property
    def name(self) -> str:
        return f"{self.fault.name} × {self.moment} × {'stream' if self.streamed else 'whole'}"

    @property
    def setup(self) -> Setup:
        return moments.setup(self.fault, self.moment)


def forget(marker: Path) -> None:
    """Let the next load go wrong, as the script says."""
    marker.unlink(missing_ok=True)


class Play:
    """One try at one cell."""

    def __init__(self, one: Rig, cell: Cell, name: str, marker: Path) -> None:
        self.one, self.cell, self.fault = one, cell, cell.fault
        self.marker = marker
        self.once = one.once()
        self.epoch = 0
        self.start = 0
        directives = ""
        if not self.fault.outside and cell.moment not in (Moment.QUEUED, Moment.LOADING):
            plain = moments.prompt(cell.moment, name)
            at = moments.position(cell.moment, plain)
            if cell.moment is Moment.CHARACTER:
                at = self._inside(name)
            directives = self.fault.text(at, self.once)
        if cell.moment is Moment.REPLAY:
            directives = f"[[kill@{N_TOKENS // 3} once={self.once}-first]]{directives}"
        if cell.moment is Moment.LOADING:
            directives = f"[[kill@{N_TOKENS // 3} once={self.once}-first]]"
        self.prompt = moments.prompt(cell.moment, name, directives)
        self.name = name
        self.others: list[asyncio.Task[History]] = []

    def _inside(self, name: str) -> int:
        """A position inside a character of the very prompt that says it."""
        for at in range(N_TOKENS // 3, N_TOKENS):
            text = moments.prompt(self.cell.moment, name, self.fault.text(at, self.once))
            if moments.inside_a_character(text, at) == at:
                return at
        raise Missed("no position is inside a character")

    async def run(self) -> list[str]:
        one, cell = self.one, self.cell
        figures = await one.until_idle()
        self.epoch, self.start = worker(figures)["epoch"], generated(figures)
        if cell.moment is Moment.IDLE:
            histories = await self._idle()
        elif cell.moment is Moment.DRAIN:
            return await self._drain()
        else:
            histories = await self._under_way()
        wrong = self._judge(histories)
        row = await one.until_ready(-1 if self.fault.pauses else self.epoch, HIT_S)
        least = self.epoch + (2 if cell.moment in (Moment.REPLAY, Moment.LOADING) else 1)
        if cell.moment is Moment.RESTART:
            least = self.epoch + 2
        if self.fault.pauses:
            exact = {Moment.REPLAY: 1, Moment.LOADING: 1, Moment.RESTART: 1}.get(cell.moment, 0)
            if row["epoch"] != self.epoch + exact:
                wrong.append(f"a pause was taken for a death: {row['last_exit']}")
        elif row["epoch"] < least:
            raise Missed(f"epoch {row['epoch']}, not {least}: the fault did not hit")
        elif not self.fault.explains(row["last_exit"]):
            wrong.append(f"it died of something else: {row['last_exit']}")
        return wrong + self._not_met()

    def _not_met(self) -> list[str]:
        if self.fault.outside:
            return []
        met = self.marker if self.cell.moment is Moment.LOADING else self.once
        return [] if met.exists() else ["the directive was not met"]

    def _judge(self, histories: list[History]) -> list[str]:
        return [
            f"{history.name}: {item}"
            for history in histories
            for item in check(history, [other for other in histories if other is not history])
        ]

    def _ask(self) -> Ask:
        stop = "STOP" if self.cell.moment is Moment.STOP else None
        n_tokens = N_DRAINING if self.cell.moment is Moment.DRAIN else N_TOKENS
        return ask_fake(self.prompt, n_tokens, streamed=self.cell.streamed, stop=stop)

    # the moments

    async def _idle(self) -> list[History]:
        one = self.one
        pid = worker(await one.figures())["pid"]
        send(pid, self.fault.number or 0)
        if self.fault.pauses:
            history = begin("after", self._ask())
            task = asyncio.create_task(pursue(one.session, one.url, self._ask(), history))
            await self._paused(pid, history)
            return [await task]
        if not self.fault.hangs:
            await one.until(lambda now: worker(now)["epoch"] > self.epoch, "a death", HIT_S)
        return [await run_ask(one.session, one.url, self._ask(), "after")]

    async def _under_way(self) -> list[History]:
        """The stream of this cell, with one beside it where that does not spoil the position."""
        one, moment = self.one, self.cell.moment
        tasks = []
        if moment is Moment.QUEUED:
            tasks += self._fillers()
            await one.until(lambda now: occupancy(now)[0] == 2, "both places are taken")
        elif not self.fault.outside:
            beside = ask_fake(f"beside {self.name}", N_TOKENS)
            tasks.append(asyncio.create_task(run_ask(one.session, one.url, beside, "beside")))
        if moment is Moment.LOADING and not self.fault.outside:
            forget(self.marker)
        history = begin("under test", self._ask())
        under_test = asyncio.create_task(pursue(one.session, one.url, self._ask(), history))
        tasks.append(under_test)
        try:
            if self.fault.outside:
                await self._strike(history)
            return [await task for task in tasks]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _fillers(self) -> list[asyncio.Task[History]]:
        one, asks = self.one, []
        for number in range(2):
            fault = ""
            if number == 0 and not self.fault.outside:
                fault = self.fault.text(N_TOKENS // 3, self.once)
            asks.append(ask_fake(f"{fault}filler {number} {self.name}", 2 * N_TOKENS))
        return [
            asyncio.create_task(run_ask(one.session, one.url, ask, f"filler {number}"))
            for number, ask in enumerate(asks)
        ]

    async def _strike(self, history: History) -> None:
        """Wait for the moment, send the signal, and see that the stream was still open."""
        pid = await self._moment()
        send(pid, self.fault.number or 0)
        if not history.open:
            raise Missed("the stream had ended")
        if self.fault.pauses:
            await self._paused(pid, history)

    async def _paused(self, pid: int, history: History) -> None:
        """The fault is a time, so this waits for one."""
        await asyncio.sleep(PAUSE_S)
        was_open = history.open
        send(pid, signal.SIGCONT)
        if not was_open:
            raise Missed("the stream ended during the pause")

    async def _moment(self) -> int:
        """The pid of the worker to hit, as soon as the moment has come."""
        one, moment, epoch = self.one, self.cell.moment, self.epoch
        third = N_TOKENS // 3
        match moment:
            case Moment.PREFILL:
                found = await one.until(lambda now: occupancy(now)[0] == 1, "it runs")
            case Moment.QUEUED:
                found = await one.until(
                    lambda now: occupancy(now) == (2, 1) and self._gained(now) >= third, "it waits"
                )
            case Moment.REPLAY:
                found = await one.until(
                    lambda now: (
                        is_ready(now) and worker(now)["epoch"] > epoch and occupancy(now)[0] == 1
                    ),
                    "it is replayed",
                )
            case Moment.LOADING:
                found = await one.until(
                    lambda now: worker(now)["state"] == "loading" and worker(now)["epoch"] > epoch,
                    "the next one loads",
                )
            case Moment.RESTART:
                found = await self._restarting(third)
            case _:
                least = moments.position(moment, self.prompt)
                least = max(1, min(least, N_TOKENS - 2))  # a signal takes a moment to arrive
                found = await one.until(lambda now: self._gained(now) >= least, "its position")
        return int(worker(found)["pid"])

    async def _restarting(self, after: int) -> Figures:
        """An operator restarts the worker; the next one has been started and not said hello."""
        one = self.one
        await one.until(lambda now: self._gained(now) >= after, "tokens")
        control = one.service.control

        def restart() -> None:
            with contextlib.suppress(Exception):
                list(control.restart(None, now=False))

        self._restart = asyncio.create_task(asyncio.to_thread(restart))
        return await one.until(
            lambda now: (
                worker(now)["epoch"] > self.epoch
                and worker(now)["state"] in ("starting", "loading")
            ),
            "the next one starts",
        )

    def _gained(self, figures: Figures) -> int:
        return generated(figures) - self.start

    async def _drain(self) -> list[str]:
        """A stop is asked for while streams run; then the fault; all streams end as they should."""
        one, fault = self.one, self.fault
        seen, exits = {self.epoch}, []
        children = one.service.front.children(recursive=True)
        beside = ask_fake(f"beside {self.name}", N_DRAINING)
        asks = [("under test", self._ask()), ("beside", beside)]
        histories = [begin(name, ask) for name, ask in asks]
        tasks = [
            asyncio.create_task(pursue(one.session, one.url, ask, history))
            for (_, ask), history in zip(asks, histories, strict=True)
        ]
        await one.until(lambda now: self._gained(now) >= 4, "tokens")
        one.service.process.send_signal(signal.SIGTERM)
        if fault.outside:
            found = await one.until(lambda now: self._gained(now) >= 50, "tokens in the drain")
            pid = int(worker(found)["pid"])
            send(pid, fault.number or 0)
            if not histories[0].open:
                raise Missed("the stream had ended")
            if fault.pauses:
                await self._paused(pid, histories[0])
        while not all(task.done() for task in tasks):
            with contextlib.suppress(aiohttp.ClientError, OSError):
                row = worker(await one.figures())
                seen.add(row["epoch"])
                exits.append(row["last_exit"])
            await asyncio.sleep(0.01)
        wrong = self._judge([await task for task in tasks])
        await asyncio.to_thread(one.service.process.wait, 30)
        if one.service.process.returncode != 0:
            wrong.append(f"the front ended with {one.service.process.returncode}")
        wrong += await asyncio.to_thread(survivors, children)
        if fault.pauses and seen != {self.epoch}:
            wrong.append("a pause was taken for a death")
        if not fault.pauses and max(seen) <= self.epoch:
            wrong.append("no later epoch was seen")
        elif not fault.pauses and not any(map(fault.explains, filter(None, exits))):
            wrong.append(f"it died of something else: {exits[-1]}")
        return wrong + self._not_met()
