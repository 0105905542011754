"""Who fills one worker's place: a runner that serves, one that may take over, and those that end.

Owns the actors and their tasks, and what the listener hears of each. When one takes over from
another is decided elsewhere (`replacer.py`), but for one case: a hot candidate serves in the moment
in which the current worker is lost.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpufc.errors import Overloaded
from supervisor.fleet import events as ev
from supervisor.fleet.actor import Actor
from supervisor.fleet.condition import START_S, of_runner
from supervisor.fleet.exit_reason import ASKED, ExitReason, Reason
from supervisor.fleet.lifecycle import AT_REST, WorkerState
from supervisor.fleet.port import (
    Condition,
    ConditionStatus,
    FleetListener,
    SpareState,
    SpareStatus,
    WorkerStatus,
)
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.stage import Stage
from supervisor.fleet.worker import WorkerSpec

logger = logging.getLogger(__name__)

BUSY_S = 5.0
"""When to ask again while a worker is being replaced."""

MakeRunner = Callable[[WorkerSpec, Stage, Callable[[], None]], WorkerRunner]
"""A runner of this spec that reports to this stage; the last is its `Hooks.drained`."""


class Place:
    """Made by the fleet, in the event loop; `close` ends everything in it.

    Invariants: the listener hears of `current`, of those that drain, and of nobody else; each
    actor is either the current one, the candidate or retiring; a retiring one is forgotten once
    it has no process.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        make: MakeRunner,
        listener: Callable[[], FleetListener | None],
        became_ready: Callable[[], None],
    ) -> None:
        self.spec = spec
        """What is meant to serve here."""
        self.busy = False
        """Whether a replacement is going on. Nobody takes over by itself meanwhile."""
        self.is_vacant = False
        """Whether nothing serves before the candidate does: there is not room for both."""
        self.candidate: Actor | None = None
        self._make = make
        self._listener = listener
        self._became_ready = became_ready
        self.n_changes = 0
        self._changed = asyncio.Event()
        self._retiring: list[Actor] = []
        self._burials: set[asyncio.Task[None]] = set()
        self.current = self._actor(spec, on_stage=True)

    # what is seen from outside

    @property
    def runner(self) -> WorkerRunner:
        """The runner that serves, or would."""
        return self.current.runner

    @property
    def serves(self) -> bool:
        """Whether there is a ready worker now."""
        return self.current.stage.worker is not None

    @property
    def hot(self) -> Actor | None:
        """The candidate, if it is ready to take over at once."""
        found = self.candidate
        return found if found is not None and found.is_hot else None

    def condition(self) -> Condition:
        """Whether a token could be produced now."""
        now = time.monotonic()
        if not self.is_vacant:
            return of_runner(self.runner, now)
        if self.candidate is None:
            return Condition(ConditionStatus.RESTARTING, "the model is being changed", START_S)
        loading = of_runner(self.candidate.runner, now)
        # requests wait, whatever state it is in: nothing has failed yet
        return Condition(ConditionStatus.LOADING, loading.detail, loading.retry_after_s)

    def workers(self) -> list[WorkerStatus]:
        """The current worker's row, then those of workers whose streams end on them."""
        old = [actor.runner.status() for actor in self._retiring if actor.stage.on_stage]
        return [self.runner.status(), *(row for row in old if row.pid is not None)]

    def spares(self) -> list[SpareStatus]:
        """The candidate's row."""
        found = self.candidate
        if found is None or (pid := found.runner.lifecycle.pid) is None:
            return []
        return [SpareStatus(pid=pid, state=_spare_state(found), rss_bytes=found.runner.rss_bytes)]

    def runners(self) -> list[WorkerRunner]:
        """All there are."""
        return [actor.runner for actor in self._actors()]

    def _actors(self) -> Iterator[Actor]:
        yield self.current
        if self.candidate is not None:
            yield self.candidate
        yield from self._retiring

    async def wait_changed(self, since: int) -> None:
        """Wait until anything in here is not what it was when `n_changes` was so much."""
        while self.n_changes == since:
            await self._changed.wait()

    # its life

    def start(self) -> None:
        """Begin to start the worker."""
        self.current.start()

    def request_stop(self, *, now: bool) -> None:
        """Begin to end everything."""
        for actor in self._actors():
            actor.runner.post(ev.StopRequested(now))

    async def wait_stopped(self) -> None:
        """Wait until no process is left."""
        for actor in list(self._actors()):
            await actor.wait_stopped()

    async def close(self) -> None:
        """After the processes have ended, or cannot be ended."""
        burials, self._burials = self._burials, set()
        for task in burials:
            task.cancel()
        await asyncio.gather(*burials, return_exceptions=True)
        for actor in list(self._actors()):
            await actor.close()

    @property
    def settled(self) -> bool:
        """Whether its worker serves, or there is no process and none on its way; a candidate
        aside."""
        if self.busy or self._retiring:
            return False
        return self.runner.lifecycle.state in {WorkerState.READY} | AT_REST

    # replacements

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """For as long as a replacement takes. Raises `Overloaded` during another one."""
        if self.busy:
            raise Overloaded(
                f"worker {self.spec.name} is being replaced just now; try again",
                retry_after_s=BUSY_S,
            )
        self.busy = True
        try:
            yield
        finally:
            self.busy = self.is_vacant = False
            self._wake()

    async def nominate(self, spec: WorkerSpec) -> Actor:
        """A new candidate in the place of the one there is. It begins to start."""
        await self.dismiss()
        self.candidate = self._actor(spec, on_stage=False)
        self.candidate.start()
        return self.candidate

    async def dismiss(self) -> None:
        """End the candidate, if there is one."""
        actor, self.candidate = self.candidate, None
        if actor is not None:
            self.retire(actor, ev.StopRequested(now=True))
            await actor.wait_stopped()

    def promote(self, end: ExitReason) -> Actor:
        """From now on the candidate serves. Returns the one before, which ends as `end` says."""
        if self.candidate is None:
            raise AssertionError("nobody to promote")
        before, self.current, self.candidate = self.current, self.candidate, None
        restarts = before.runner.lifecycle.restarts + 1
        self.runner.post(ev.TookOver(restarts, end))
        self.current.stage.enter()
        self._became_ready()
        return before

    def retire(self, actor: Actor, *events: ev.Event) -> None:
        """Let it end by itself, from now on or once it is drained."""
        self._retiring.append(actor)
        for event in events:
            actor.runner.post(event)
        task = asyncio.create_task(self._bury(actor))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    async def _bury(self, actor: Actor) -> None:
        await actor.wait_stopped()
        self._retiring.remove(actor)
        await actor.close()
        self._wake()

    def _actor(self, spec: WorkerSpec, *, on_stage: bool) -> Actor:
        actor: Actor
        stage = Stage(
            self._listener,
            on_stage=on_stage,
            changed=self._wake,
            lost=lambda reason: self._on_lost(actor, reason),
        )
        actor = Actor(self._make(spec, stage, lambda: _end_drained(actor)), stage)
        return actor

    def _on_lost(self, actor: Actor, reason: ExitReason) -> None:
        """The current worker is gone: a hot one serves in the same moment."""
        if actor is not self.current or self.hot is None or self.busy or reason.reason in ASKED:
            return
        logger.info("hot_spare_takes_over worker=%s", self.spec.name)
        before = self.promote(reason)
        before.stage.leave()
        before.passed = None
        self.candidate = before  # its own policy starts it again, and it becomes the next one

    def _wake(self) -> None:
        self.n_changes += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _end_drained(actor: Actor) -> None:
    actor.runner.post(ev.StopRequested(reason=Reason.SWAPPED))


def _spare_state(candidate: Actor) -> SpareState:
    if candidate.is_hot:
        return SpareState.HOT
    coming = candidate.runner.lifecycle.state is WorkerState.STARTING
    return SpareState.STARTING if coming else SpareState.LOADING
