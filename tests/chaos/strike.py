"""A signal from outside, sent when the front's figures say that the moment has come.

Each engine step is so slow that the signal arrives in the one after it. One that came too early or
too late raises `Missed`: what was hit then is another moment.
"""

import asyncio
import signal

from tests.chaos.faults import PAUSE_S, Fault
from tests.chaos.history import History
from tests.chaos.moments import AFTER_A_DEATH, Moment
from tests.chaos.operation import Operation
from tests.chaos.plan import Plan
from tests.chaos.rig import (
    Figures,
    Missed,
    Rig,
    generated,
    is_draining,
    is_ready,
    occupancy,
    send,
    worker,
)

HIT_S = 60.0
"""A fault that nothing comes of within this time did not hit."""


class Strike:
    """One signal at one moment of a stream that began when the front had `start` tokens in all."""

    def __init__(
        self, one: Rig, fault: Fault, moment: Moment, plan: Plan, *, epoch: int, start: int
    ) -> None:
        self.one, self.fault, self.moment, self.plan = one, fault, moment, plan
        self.epoch, self.start = epoch, start

    async def hit(self, history: History, operation: Operation | None = None) -> int:
        """Returns the pid that was hit. `operation` is the replacement that is going on."""
        pid = await self._victim(operation)
        send(pid, self.fault.number or 0)
        if not history.open:
            send(pid, signal.SIGCONT)
            raise Missed("the stream had ended")
        if self.fault.pauses:
            await self.pause(pid, history)
        elif self.plan.lasts:
            self._require_meant(await self._at_death())
        return pid

    async def pause(self, pid: int, history: History) -> None:
        """The fault is a time, so this waits for one."""
        await asyncio.sleep(PAUSE_S)
        was_open, n_tokens = history.open, self._gained(await self.one.figures())
        send(pid, signal.SIGCONT)
        if not was_open and self.moment is not Moment.CANDIDATE:  # no stream waits for it
            raise Missed("the stream ended during the pause")
        if self.plan.lasts:
            self._require_meant(n_tokens)

    async def _at_death(self) -> int:
        """The tokens that the stream had when its worker was lost: the next one has to load."""
        found = await self.one.until(
            lambda now: not is_ready(now) or worker(now)["epoch"] > self.epoch, "a death", HIT_S
        )
        return self._gained(found)

    def _require_meant(self, n_tokens: int) -> None:
        if n_tokens not in self.plan.lasts:
            raise Missed(f"hit after {n_tokens} tokens, which is not {self.moment}")

    async def _victim(self, operation: Operation | None) -> int:
        """The pid of the worker to hit, as soon as the moment has come."""
        one, moment, epoch, third = self.one, self.moment, self.epoch, self.plan.third
        if moment in AFTER_A_DEATH:
            await self._kill_after(third)
        if operation is not None:
            await one.until(lambda now: self._gained(now) >= third, "tokens")
            candidate = await operation.begin()
            return candidate if moment is Moment.CANDIDATE else await self._serving()
        match moment:
            case Moment.QUEUED:
                found = await one.until(
                    lambda now: occupancy(now) == (2, 1) and self._gained(now) >= third, "it waits"
                )
            case Moment.REPLAY:
                found = await one.until(
                    lambda now: self._is_later(now) and occupancy(now)[0] == 1, "it is replayed"
                )
            case Moment.LOADING:
                found = await one.until(
                    lambda now: worker(now)["state"] == "loading" and worker(now)["epoch"] > epoch,
                    "the next one loads",
                )
            case Moment.DRAIN:
                found = await one.until(
                    lambda now: is_draining(now) and self._gained(now) >= third, "a drain"
                )
            case _:
                found = await one.until(self._is_now, "its position")
        return int(worker(found)["pid"])

    async def _kill_after(self, n_tokens: int) -> None:
        found = await self.one.until(lambda now: self._gained(now) >= n_tokens, "tokens")
        send(worker(found)["pid"], signal.SIGKILL)

    async def _serving(self) -> int:
        return int(worker(await self.one.figures())["pid"])

    def _is_now(self, now: Figures) -> bool:
        return occupancy(now)[0] > 0 and self._gained(now) in self.plan.lasts

    def _is_later(self, now: Figures) -> bool:
        return is_ready(now) and bool(worker(now)["epoch"] > self.epoch)

    def _gained(self, figures: Figures) -> int:
        return generated(figures) - self.start
