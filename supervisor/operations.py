"""The operations of a front, such as restart, swap and load. Each goes on without its caller.

The control socket, `/admin` and signals all come here.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from gpufc.changes import Change
from gpufc.errors import NotFound, Overloaded
from gpufc.ids import WorkerName
from supervisor.fleet.operation import Operation, Work
from supervisor.fleet.port import ModelChange, OnReplacement
from supervisor.handover.giver import Giver, GivingFront, Upgraded, UpgradeFailed
from supervisor.reload import Reloader
from supervisor.roster.roster import Roster


class OperatedFront(GivingFront, Protocol):
    """The parts that operations work on (`supervisor.app.Front`)."""

    roster: Roster

    @property
    def reloader(self) -> Reloader: ...


class Reloading:
    """A reload that has begun. `changes` are known at its end."""

    def __init__(self, reloader: Reloader, is_trial: bool) -> None:
        self.changes: tuple[Change, ...] = ()
        self._reloader = reloader
        self._is_trial = is_trial
        self.operation = Operation("trial of a reload" if is_trial else "reload", self._work)

    async def _work(self, tell: OnReplacement) -> None:
        self.changes = await self._reloader.reload(is_trial=self._is_trial, tell=tell)


class Operations:
    """Begins operations and owns their tasks. In the event loop.

    Invariant: at most one upgrade is going on, and none after it has handed the front over.
    """

    def __init__(self, front: OperatedFront) -> None:
        self.stopping = asyncio.Event()
        """Set when a stop has been requested."""
        self.stop_now = asyncio.Event()
        """Set when running requests are not to be waited for."""
        self.successor: int | None = None
        """The pid of the front that has taken over from this one."""
        self._front = front
        self._tasks: set[asyncio.Task[None]] = set()
        self._giver: Giver | None = None
        self._giving = asyncio.Lock()
        self._handed_over = asyncio.Event()
        self._drain: asyncio.Handle | None = None
        self._drains_at: float | None = None
        """When new requests are refused, in the loop's time; None without a drain."""

    # stop

    def request_stop(self, now: bool = False) -> None:
        """Begin to drain; with `now`, or the second time, end at once. Returns immediately."""
        if now or self.stopping.is_set():
            self.stop_now.set()
        self.stopping.set()

    def drain(self, lead_s: float = 0.0) -> None:
        """Tell balancers that the front leaves, and refuse new requests after `lead_s`. Accepted
        ones go on. The front does not end. Returns immediately."""
        self._hold_drain()
        self._front.dispatcher.leave()
        loop = asyncio.get_running_loop()
        self._drains_at = loop.time() + lead_s
        self._drain = loop.call_later(lead_s, self._front.dispatcher.drain)

    def undrain(self) -> None:
        """Take requests again. Raises `Overloaded` if a stop has been requested."""
        if self.stopping.is_set():
            raise Overloaded("the front is stopping", retry_after_s=1.0)
        self._hold_drain()
        self._front.dispatcher.stay()

    def _hold_drain(self) -> None:
        if self._drain is not None:
            self._drain.cancel()
        self._drain = self._drains_at = None

    def _drains_in_s(self) -> float | None:
        """After how many seconds new requests are refused, 0 if they are; None without a drain."""
        if self._drains_at is None:
            return None
        return max(0.0, self._drains_at - asyncio.get_running_loop().time())

    @property
    def is_drained(self) -> bool:
        """Whether new requests are refused and none is left."""
        return self._front.dispatcher.is_drained

    async def wait_end(self) -> bool:
        """Wait until the front is to end. True if another front has taken over.

        A stop that is requested while another front takes over waits for the outcome.
        """
        waits = [asyncio.create_task(e.wait()) for e in (self.stopping, self._handed_over)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if not self._handed_over.is_set():
            async with self._giving:
                pass
            return False
        return True

    def cancel(self) -> None:
        """End the waiting for operations that have begun. Their followers are told."""
        for task in self._tasks:
            task.cancel()

    # restart and swap

    def restart(self, worker: str | None, now: bool = False) -> Operation:
        """Begin to replace one worker, or all one after another. Raises `NotFound`."""
        fleet = self._front.fleet
        if not any(worker in {None, row.name} for row in fleet.workers()):
            which = "worker: no model is in memory" if worker is None else f"worker {worker!r}"
            raise NotFound(f"there is no {which}", param="worker")
        only = None if worker is None else WorkerName(worker)
        return self._begin(
            f"restart of {worker or 'all workers'}",
            lambda tell: fleet.restart(only, now=now, tell=tell),
        )

    def swap(self, name: str | None, change: ModelChange) -> Operation:
        """Begin to serve another model under a served name; None means the only one."""
        return self._begin(
            f"swap to {change.model_path}", lambda tell: self._swap(name, change, tell)
        )

    # configuration

    def reload(self, *, is_trial: bool = False) -> "Reloading":
        """Begin to read the configuration again and to apply it. A trial applies nothing."""
        reloading = Reloading(self._front.reloader, is_trial)
        self._own(reloading.operation.task)
        return reloading

    def reload_soon(self, why: str) -> None:
        """Reload for a signal. The log tells the outcome."""
        self._own(asyncio.create_task(self._front.reloader.reload_logged(why)))

    async def _swap(self, name: str | None, change: ModelChange, tell: OnReplacement) -> None:
        """A model that is not in memory is loaded first: the new one has to pass beside it."""
        fleet, roster = self._front.fleet, self._front.roster
        model = fleet.to_be_swapped(name)
        if not fleet.group(model).places:
            await roster.load(model, tell)
        await fleet.swap(name, change, tell=tell)
        roster.register(model)

    # load and unload

    def load(self, model: str) -> Operation:
        """Begin to load a model. Raises `ModelNotFound`."""
        served = self._front.fleet.resolve(model)
        return self._begin(f"load of {served}", lambda tell: self._front.roster.load(served, tell))

    def unload(self, model: str) -> Operation:
        """Begin to unload a model: it goes when it is idle. Raises `ModelNotFound`."""
        served, roster = self._front.fleet.resolve(model), self._front.roster
        return self._begin(f"unload of {served}", lambda tell: roster.unload(served, tell))

    def begin(self, name: str, work: Work) -> Operation:
        """Begin any other work that goes on without its caller."""
        return self._begin(name, work)

    def _begin(self, name: str, work: Work) -> Operation:
        operation = Operation(name, work)
        self._own(operation.task)
        return operation

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its followers have been told

    # upgrade

    async def upgrade(self, tell: Callable[[str], None]) -> Upgraded:
        """Let a new front take over. Returns when it serves.

        This front then drains and ends. `tell` gets lines for people. Raises `UpgradeFailed`: this
        front then goes on as before, except after `UpgradeBroke`.
        """
        if self._giver is not None:
            raise UpgradeFailed("the front is being replaced already")
        if self.stopping.is_set():
            raise UpgradeFailed("the front is stopping")
        giver = self._giver = Giver(self._front, tell, self._drains_in_s)
        try:
            async with self._giving:
                done = await giver.hand_over()
        except BaseException:
            if giver.handed_over:
                self._handed_over.set()
            else:
                self._giver = None
            raise
        await self._front.roster.stop()
        self.successor = done.pid
        self._own(asyncio.create_task(self._drain_away(giver)))
        return done

    async def _drain_away(self, giver: Giver) -> None:
        await giver.drain()
        self._handed_over.set()
