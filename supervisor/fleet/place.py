"""One worker's place, whichever runner fills it: restart, swap, recycle and hot standby.

A place has one *current* runner, at most one *candidate* that is loaded and tried beside it, and
runners that are *retiring*: they end what has begun on them. What is decided stands in
`replacement.py`; here it is carried out, one replacement at a time.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from gpufc.errors import EngineUnavailable, GpufcError, Overloaded, SwapRefused
from supervisor.fleet import events as ev
from supervisor.fleet import replacement as decide
from supervisor.fleet.actor import Actor
from supervisor.fleet.condition import START_S, of_runner
from supervisor.fleet.exit_reason import ASKED, ExitReason, Reason
from supervisor.fleet.kv_handover import hand_over
from supervisor.fleet.lifecycle import AT_REST, COMING_UP, SERVING, WorkerState
from supervisor.fleet.port import (
    Condition,
    ConditionStatus,
    FleetListener,
    ModelChange,
    OnReplacement,
    Replacement,
    ReplacementStage,
    SpareState,
    SpareStatus,
    WorkerStatus,
)
from supervisor.fleet.runner import Hooks, WorkerRunner, WorkerSpec
from supervisor.fleet.stage import Stage
from supervisor.fleet.trial import Trial

logger = logging.getLogger(__name__)

TRIAL_S = 60.0
BUSY_S = 5.0

MakeRunner = Callable[[WorkerSpec, Stage, Callable[[], None]], WorkerRunner]
"""A runner of this spec that reports to this stage; the last is its `Hooks.drained`."""


class CandidateFailed(GpufcError):
    """A candidate cannot take over."""

    def __init__(self, failure: decide.CandidateFailure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class Place:
    """Made by the fleet, in the event loop; `close` ends everything in it."""

    def __init__(
        self,
        spec: WorkerSpec,
        make: MakeRunner,
        listener: Callable[[], FleetListener | None],
        hooks: Hooks,
        *,
        handover_kv_bytes: int = 0,
    ) -> None:
        self.spec = spec
        self._make = make
        self._listener = listener
        self._hooks = hooks
        self._handover_kv_bytes = handover_kv_bytes
        self._changed = asyncio.Event()
        self._busy = False
        self._stops_first = False
        self._candidate: Actor | None = None
        self._retiring: list[Actor] = []
        self._tasks: set[asyncio.Task[None]] = set()
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
        found = self._candidate
        return found if found is not None and found.is_hot else None

    @property
    def busy(self) -> bool:
        """Whether a replacement is going on."""
        return self._busy

    def condition(self) -> Condition:
        """Whether a token could be produced now."""
        now = time.monotonic()
        if self._stops_first:
            if self._candidate is not None:
                return _waiting(of_runner(self._candidate.runner, now))
            return Condition(ConditionStatus.RESTARTING, "the model is being changed", START_S)
        return of_runner(self.runner, now)

    def workers(self) -> list[WorkerStatus]:
        """The current worker's row, then those of retiring ones."""
        old = [actor.runner.status() for actor in self._retiring]
        return [self.runner.status(), *(row for row in old if row.pid is not None)]

    def spares(self) -> list[SpareStatus]:
        """The candidate's row."""
        found = self._candidate
        if found is None or (pid := found.runner.lifecycle.pid) is None:
            return []
        return [SpareStatus(pid=pid, state=_spare_state(found), rss_bytes=found.runner.rss_bytes)]

    def runners(self) -> list[WorkerRunner]:
        """All there are."""
        return [actor.runner for actor in self._actors()]

    def _actors(self) -> Iterator[Actor]:
        yield self.current
        if self._candidate is not None:
            yield self._candidate
        yield from self._retiring

    async def wait_changed(self) -> None:
        """Wait until anything in here is not what it was."""
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
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for actor in list(self._actors()):
            await actor.close()

    # another front takes over

    @property
    def settled(self) -> bool:
        """Whether its worker serves, or there is no process and none on its way."""
        if self._busy or self._retiring:
            return False
        return self.runner.lifecycle.state in {WorkerState.READY} | AT_REST

    async def leave(self) -> None:
        """The worker belongs to another front: end what else there is."""
        if self._candidate is not None:
            await self._dismiss(self._candidate)

    # replacements

    async def restart(self, *, now: bool, tell: OnReplacement, reason: Reason) -> None:
        """Replace the process: the new one first, where that is possible.

        Raises `Overloaded` while another replacement is going on, and `EngineUnavailable`, when
        the one before serves on or when none serves.
        """
        with self._exclusive():
            if now or not self.serves:
                await self._restart_in_place(tell, now=now)
                return
            try:
                fresh = await self._tried(self._like_now(), tell)
            except CandidateFailed as err:
                if decide.after_failed_restart(err.failure) is decide.Verdict.STOP_FIRST:
                    logger.info("restart_stops_first worker=%s: %s", self.spec.name, err)
                    await self._restart_in_place(tell, now=now)
                    return
                raise EngineUnavailable(
                    f"the new worker cannot take over, the one before serves on: {err}",
                    retry_after_s=BUSY_S,
                ) from err
            await self._take_over(fresh, reason, tell)

    async def swap(self, change: ModelChange, *, tell: OnReplacement) -> None:
        """Serve another model. Raises `SwapRefused` if the one before serves on, `Overloaded`."""
        with self._exclusive():
            wanted = msgspec.structs.replace(
                self.spec, config=decide.changed(self.spec.config, change)
            )
            try:
                fresh = await self._tried(self._beside(wanted), tell)
            except CandidateFailed as err:
                freed = self.runner.rss_bytes + self._device_bytes()
                if decide.after_failed_swap(err.failure, freed_bytes=freed) is not (
                    decide.Verdict.STOP_FIRST
                ):
                    raise SwapRefused(str(err)) from err
                await self._swap_stop_first(wanted, tell)
                return
            self.spec = wanted
            await self._take_over(fresh, Reason.SWAPPED, tell)

    async def keep_hot(self) -> None:
        """Have a candidate that is loaded and tried, if there is none. Raises `CandidateFailed`."""
        if self._busy or not self.serves or self.hot is not None:
            return
        former = self._candidate
        if former is not None and former.runner.lifecycle.state in COMING_UP | {
            WorkerState.BACKOFF
        }:
            return  # it had served, and is on its way back
        with self._exclusive():
            if former is None or former.runner.worker is None:
                await self._tried(self._like_now(), lambda _: None)
                return
            try:
                await self._try(former)
            except CandidateFailed:
                await self._dismiss(former)
                raise

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        if self._busy:
            raise Overloaded(f"worker {self.spec.name} is being replaced", retry_after_s=BUSY_S)
        self._busy = True
        try:
            yield
        finally:
            self._busy = self._stops_first = False
            self._wake()

    def _like_now(self) -> WorkerSpec:
        worker = self.runner.worker
        config = decide.pinned(self.spec.config, worker.ready if worker else None)
        return msgspec.structs.replace(self.spec, config=config)

    def _beside(self, wanted: WorkerSpec) -> WorkerSpec:
        worker = self.runner.worker
        config = decide.beside(wanted.config, worker.ready if worker else None)
        return msgspec.structs.replace(wanted, config=config)

    def _device_bytes(self) -> int:
        worker = self.runner.worker
        return worker.ready.device_bytes if worker else 0

    async def _restart_in_place(self, tell: OnReplacement, *, now: bool) -> None:
        """Stop, start, replay."""
        runner, epoch = self.runner, self.runner.lifecycle.epoch
        runner.post(ev.RestartRequested(now))
        await self._followed(self.current, tell, lambda: _settled(runner, epoch))
        if runner.worker is None:
            condition = of_runner(runner, time.monotonic())
            raise EngineUnavailable(condition.detail, retry_after_s=condition.retry_after_s)
        self._say(tell, ReplacementStage.READY)

    async def _swap_stop_first(self, wanted: WorkerSpec, tell: OnReplacement) -> None:
        """The old one ends first, since both do not fit; it is loaded again if need be."""
        old = self.current
        self._stops_first = True
        self._say(tell, ReplacementStage.DRAINING, "there is not room for both")
        old.drain()
        if old.stage.worker is None:
            old.runner.post(ev.StopRequested(reason=Reason.SWAPPED))
        await old.wait_stopped()
        try:
            fresh = await self._tried(wanted, tell)
        except CandidateFailed as err:
            self._say(tell, ReplacementStage.ROLLING_BACK, str(err))
            old.stage.undrain()
            old.runner.post(ev.StartRequested())
            await self._followed(old, lambda _: None, lambda: _is_back(old.runner))
            raise SwapRefused(f"{err} (the model before was loaded again)") from err
        self.spec = wanted
        await self._take_over(fresh, Reason.SWAPPED, tell)

    # candidates

    async def _tried(self, spec: WorkerSpec, tell: OnReplacement) -> Actor:
        """A candidate of this spec that has passed its trial; the hot one if it is such a one."""
        hot = self.hot
        if hot is not None and hot.runner.spec == spec:
            return hot
        if self._candidate is not None:
            await self._dismiss(self._candidate)
        fresh = self._candidate = self._actor(spec, on_stage=False)
        fresh.start()
        try:
            life = fresh.runner.lifecycle
            await self._followed(fresh, tell, lambda: _up_or_down(fresh))
            if fresh.runner.worker is None:
                raise CandidateFailed(decide.candidate_failed(life.last_exit, life.shortage))
            self._say(tell, ReplacementStage.TRYING, of=fresh)
            await self._try(fresh)
        except BaseException:
            await self._dismiss(fresh)
            raise
        return fresh

    async def _try(self, actor: Actor) -> None:
        """Raises `CandidateFailed`."""
        worker = actor.stage.worker
        settled: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        if worker is None:
            raise CandidateFailed(decide.CandidateFailure("it ended before its trial"))
        trial = actor.stage.trial = Trial(settled.set_result)
        trial.begin(worker)
        timer = asyncio.get_running_loop().call_later(TRIAL_S, trial.timed_out, TRIAL_S)
        try:
            failure = await settled
        finally:
            timer.cancel()
        if failure is not None:
            raise CandidateFailed(decide.CandidateFailure(f"its trial failed: {failure}"))
        actor.passed = worker
        logger.info("trial_passed worker=%s epoch=%d", self.spec.name, worker.epoch)

    async def _dismiss(self, actor: Actor) -> None:
        if self._candidate is actor:
            self._candidate = None
        self._retire(actor, ev.StopRequested(now=True))
        await actor.wait_stopped()

    # taking over

    async def _take_over(self, fresh: Actor, reason: Reason, tell: OnReplacement) -> None:
        """From now on the candidate serves. Raises `EngineUnavailable` if it has died since."""
        old, new = self.current.runner.worker, fresh.runner.worker
        same = False
        if old is not None and new is not None:
            same = old.ready.fingerprint == new.ready.fingerprint
            if same:
                await hand_over(old, new, self._handover_kv_bytes)
        if fresh.runner.worker is None:
            await self._dismiss(fresh)
            raise EngineUnavailable(
                "the new worker died before it took over, the one before serves on",
                retry_after_s=BUSY_S,
            )
        before = self._enter(fresh, ExitReason(reason=reason, at=time.time()))
        self._hooks.restarted(reason)
        if same or before.stage.worker is None:
            self._retire(before, ev.StopRequested(reason=reason))
            await before.wait_stopped()
            self._continue_record(fresh, before)
        else:
            self._retire(before)
            before.drain()
        self._say(tell, ReplacementStage.READY)

    def _enter(self, fresh: Actor, end: ExitReason) -> Actor:
        """Let the candidate be the current one; returns the one before."""
        before, self.current = self.current, fresh
        self._candidate = None
        restarts = before.runner.lifecycle.restarts + 1
        fresh.runner.post(ev.TookOver(restarts, end))
        fresh.stage.enter()
        self._hooks.became_ready()
        return before

    def _continue_record(self, fresh: Actor, before: Actor) -> None:
        """By now it is known how the process before has ended."""
        end = before.runner.lifecycle.last_exit
        if end is not None:
            fresh.runner.post(ev.TookOver(fresh.runner.lifecycle.restarts, end))

    def _on_lost(self, actor: Actor, reason: ExitReason) -> None:
        """The current worker is gone: a hot one serves in the same moment."""
        hot = self.hot
        if actor is not self.current or hot is None or reason.reason in ASKED or self._busy:
            return
        logger.info("hot_spare_takes_over worker=%s", self.spec.name)
        before = self._enter(hot, reason)
        before.stage.leave()
        before.passed = None
        self._candidate = before  # its own policy starts it again, and it becomes the next one

    def _retire(self, actor: Actor, *events: ev.Event) -> None:
        """Let it end by itself, from now on or once it is drained."""
        self._retiring.append(actor)
        for event in events:
            actor.runner.post(event)
        task = asyncio.create_task(self._bury(actor))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bury(self, actor: Actor) -> None:
        await actor.wait_stopped()
        self._retiring.remove(actor)
        await actor.close()
        self._wake()

    # small things

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

    async def _followed(self, actor: Actor, tell: OnReplacement, holds: Callable[[], bool]) -> None:
        """Wait for a runner, and tell how far its loading is."""

        def look() -> bool:
            self._say(tell, ReplacementStage.LOADING, of=actor)
            return holds()

        await actor.runner.wait_until(look)

    def _say(
        self,
        tell: OnReplacement,
        stage: ReplacementStage,
        detail: str = "",
        of: Actor | None = None,
    ) -> None:
        life = (of or self.current).runner.lifecycle
        tell(
            Replacement(
                worker=self.spec.name,
                stage=stage,
                detail=detail,
                fraction=life.loading_fraction,
                pid=life.pid,
                epoch=life.epoch,
            )
        )

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _end_drained(actor: Actor) -> None:
    actor.runner.post(ev.StopRequested(reason=Reason.SWAPPED))


def _settled(runner: WorkerRunner, before: int) -> bool:
    """Whether a newer process than that of epoch `before` is ready, or none will be."""
    life = runner.lifecycle
    if runner.defect is not None or life.state is WorkerState.STOPPED:
        return True
    return life.epoch > before and life.state in {WorkerState.READY, WorkerState.FAILED}


def _is_back(runner: WorkerRunner) -> bool:
    """Whether a runner that was started again serves, or never will."""
    up_or_failed = SERVING | {WorkerState.FAILED}
    return runner.defect is not None or runner.lifecycle.state in up_or_failed


def _up_or_down(candidate: Actor) -> bool:
    """Whether a candidate is ready, or has failed: it is not tried a second time."""
    life = candidate.runner.lifecycle
    if life.state in SERVING or candidate.runner.defect is not None:
        return True
    return life.last_exit is not None


def _waiting(condition: Condition) -> Condition:
    """A model that is being loaded in the place of another one: requests wait, nothing failed."""
    return Condition(ConditionStatus.LOADING, condition.detail, condition.retry_after_s)


def _spare_state(candidate: Actor) -> SpareState:
    if candidate.is_hot:
        return SpareState.HOT
    coming = candidate.runner.lifecycle.state is WorkerState.STARTING
    return SpareState.STARTING if coming else SpareState.LOADING
