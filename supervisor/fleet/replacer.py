"""Restart, swap, recycling and hot standby of one worker's place, one replacement at a time.

What becomes of a candidate is decided in `replacement.py`; here it is loaded, tried, and let take
over. What nobody asked for gives way to what somebody did.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from gpufc.errors import EngineUnavailable, SwapRefused
from supervisor.fleet import events as ev
from supervisor.fleet import replacement_rules as rules
from supervisor.fleet.actor import Actor
from supervisor.fleet.condition import of_runner
from supervisor.fleet.exit_reason import ASKED, ExitReason, Reason
from supervisor.fleet.kv_handover import hand_over, limit
from supervisor.fleet.lifecycle import COMING_UP, SERVING, WorkerState
from supervisor.fleet.place import BUSY_S, Place
from supervisor.fleet.port import ModelChange, OnReplacement, Replacement, ReplacementStage
from supervisor.fleet.recycling import anonymous_bytes
from supervisor.fleet.replacement_rules import CandidateFailed, CandidateFailure
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.worker import WorkerSpec

logger = logging.getLogger(__name__)


class Replacer:
    """The only one that replaces what fills a place. In the event loop."""

    def __init__(
        self,
        place: Place,
        restarted: Callable[[Reason], None],
        *,
        handover_kv_bytes: int | None = 0,
    ) -> None:
        """`restarted` is told of each takeover. At most `handover_kv_bytes` of computed KV are
        carried from a worker to its successor; with None it depends on the worker."""
        self.place = place
        self._restarted = restarted
        self._handover_kv_bytes = handover_kv_bytes
        self._upkeep: asyncio.Task[None] | None = None
        """Recycling, or the loading of a hot spare."""

    # what operators ask for

    async def restart(self, *, now: bool, tell: OnReplacement) -> None:
        """Replace the process: the new one first, where that is possible.

        Raises `Overloaded` while another replacement is going on, and `EngineUnavailable`, when
        the one before serves on or when none serves.
        """
        await self._end_upkeep()
        await self._restart(Reason.RESTARTED, now=now, tell=tell)

    async def swap(self, change: ModelChange, *, tell: OnReplacement) -> None:
        """Serve another model. Raises `SwapRefused` if the one before serves on, `Overloaded`."""
        await self._end_upkeep()
        place = self.place
        with place.claimed():
            config = rules.changed(place.spec.config, change)
            wanted = msgspec.structs.replace(place.spec, config=config)
            try:
                await self._tried(self._beside(wanted), tell)
                await self._take_over(Reason.SWAPPED, tell)
            except CandidateFailed as err:
                verdict = rules.after_failed_swap(err.failure, freed_bytes=self._freed_bytes())
                if verdict is rules.Verdict.GIVE_UP:
                    raise SwapRefused(f"{err}; the model before goes on serving") from err
                await self._swap_stop_first(wanted, tell)
            place.spec = wanted

    # what nobody asks for

    async def recycle(self) -> None:
        """Replace a worker that has grown too much. Raises as `restart` does."""
        await self._keep_up(self._restart(Reason.RECYCLED, now=False, tell=_nobody))

    async def keep_hot(self) -> None:
        """Have a candidate that is loaded and tried, if there is none. Raises `CandidateFailed`."""
        await self._keep_up(self._warm_up())

    async def _keep_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it, unless something is going on already, or until it has to give way."""
        if self.place.busy or self._upkeep is not None or not self.place.serves:
            work.close()
            return
        task = self._upkeep = asyncio.create_task(work)
        try:
            await asyncio.wait({task})
        finally:
            task.cancel()
            self._upkeep = None
        if not task.cancelled():
            task.result()

    async def _end_upkeep(self) -> None:
        """Whoever asks for something does not wait for a spare; a recycling is let finish."""
        task = self._upkeep
        if task is not None and not self.place.busy:
            task.cancel()
        if task is not None:
            await asyncio.wait({task})

    async def _warm_up(self) -> None:
        former = self.place.candidate
        if self.place.hot is not None or (former is not None and _is_coming(former)):
            return
        if former is None or former.runner.worker is None:
            await self._tried(self._like_now(), _nobody)
            return
        try:  # it had served, and is back
            await former.pass_trial()
        except CandidateFailed:
            await self.place.dismiss()
            raise

    # restart

    async def _restart(self, reason: Reason, *, now: bool, tell: OnReplacement) -> None:
        with self.place.claimed():
            if now or not self.place.serves:
                await self._restart_in_place(tell, now=now)
                return
            try:
                await self._tried(self._like_now(), tell)
                await self._take_over(reason, tell)
            except CandidateFailed as err:
                await self.place.dismiss()
                if rules.after_failed_restart(err.failure) is rules.Verdict.GIVE_UP:
                    raise EngineUnavailable(
                        f"the new worker cannot take over, the one before serves on: {err}",
                        retry_after_s=BUSY_S,
                    ) from err
                self._say(tell, ReplacementStage.STOPPING, str(err))
                await self._restart_in_place(tell, now=now)

    def _like_now(self) -> WorkerSpec:
        worker, spec = self.place.runner.worker, self.place.spec
        config = rules.pinned(spec.config, worker.facts if worker else None)
        return msgspec.structs.replace(spec, config=config)

    async def _restart_in_place(self, tell: OnReplacement, *, now: bool) -> None:
        """Stop, start, replay."""
        actor, runner = self.place.current, self.place.runner
        epoch = runner.lifecycle.epoch
        runner.post(ev.RestartRequested(now))
        await self._followed(actor, tell, lambda: _settled(runner, epoch))
        if runner.worker is None:
            condition = of_runner(runner, time.monotonic())
            raise EngineUnavailable(condition.detail, retry_after_s=condition.retry_after_s)
        self._say(tell, ReplacementStage.READY)

    # swap

    def _beside(self, wanted: WorkerSpec) -> WorkerSpec:
        """The spec of a candidate that is loaded while the old worker holds its memory."""
        worker = self.place.runner.worker
        config = rules.beside(wanted.config, worker.facts if worker else None)
        return msgspec.structs.replace(wanted, config=config)

    def _freed_bytes(self) -> int:
        """What the end of the worker that serves would give back."""
        life = self.place.runner.lifecycle
        anonymous = anonymous_bytes(life.pid) if life.pid is not None else None
        return rules.freed_bytes(life.ready.facts if life.ready else None, anonymous or 0)

    async def _swap_stop_first(self, wanted: WorkerSpec, tell: OnReplacement) -> None:
        """End the old one, since both do not fit, then try the new one again.

        Raises `SwapRefused`: the old one has been loaded again, or cannot be.
        """
        place, old = self.place, self.place.current
        place.is_vacant = True
        if rules.can_replay(place.spec.config, wanted.config):
            self._say(tell, ReplacementStage.STOPPING, "there is not room for both")
            old.runner.post(ev.StopRequested(reason=Reason.SWAPPED))
        else:
            self._say(tell, ReplacementStage.DRAINING, "there is not room for both")
            old.drain()
            if old.stage.worker is None:
                old.runner.post(ev.StopRequested(reason=Reason.SWAPPED))
        await old.wait_stopped()
        try:
            await self._tried(wanted, tell)
            await self._take_over(Reason.SWAPPED, tell)
        except CandidateFailed as err:
            self._say(tell, ReplacementStage.ROLLING_BACK, str(err))
            raise SwapRefused(f"{err}; {await self._rolled_back(old)}") from err

    async def _rolled_back(self, old: Actor) -> str:
        """Start the old worker again. Returns how that went, for people."""
        old.stage.undrain()
        old.runner.post(ev.StartRequested())
        await old.runner.wait_until(lambda: _is_back(old.runner))
        if old.runner.worker is not None:
            return "it was loaded in the place of the model before, which is loaded again"
        detail = of_runner(old.runner, time.monotonic()).detail
        return f"and the model before cannot be loaded again: {detail}"

    # candidates

    async def _tried(self, spec: WorkerSpec, tell: OnReplacement) -> None:
        """Have a candidate of this spec that has passed its trial; the hot one if it is such a
        one. Raises `CandidateFailed`, with no candidate left."""
        hot = self.place.hot
        if hot is not None and hot.runner.spec == spec:
            return
        fresh = await self.place.nominate(spec)
        try:
            life = fresh.runner.lifecycle
            await self._followed(fresh, tell, lambda: _is_up_or_down(fresh))
            if fresh.runner.worker is None:
                raise CandidateFailed(rules.candidate_failed(life.last_exit, life.shortage))
            self._say(tell, ReplacementStage.TRYING, of=fresh)
            await fresh.pass_trial()
        except BaseException:
            await self.place.dismiss()
            raise

    async def _take_over(self, reason: Reason, tell: OnReplacement) -> None:
        """From now on the candidate serves. Raises `CandidateFailed` if it has died since, with no
        candidate left."""
        place, fresh = self.place, self.place.candidate
        old, new = place.runner.worker, fresh.runner.worker if fresh else None
        continues = False
        if old is not None and new is not None and rules.continues(old.facts, new.facts):
            continues = True
            await hand_over(old, new, limit(self._handover_kv_bytes, old.facts, new.facts))
        if fresh is None or fresh.runner.worker is None:
            await place.dismiss()
            raise CandidateFailed(CandidateFailure("it died before it took over"))
        before = place.promote(ExitReason(reason=reason, at=time.time()))
        self._restarted(reason)
        # what had begun on one that has just died may be able to go on there only
        is_needed = _comes_back(before) and not _can_replay(before, fresh)
        if continues or (before.stage.worker is None and not is_needed):
            place.retire(before, ev.StopRequested(reason=reason))
            await before.wait_stopped()
            self._continue_record(fresh, before)
        else:
            place.retire(before)
            before.drain()
        self._say(tell, ReplacementStage.READY)

    @staticmethod
    def _continue_record(fresh: Actor, before: Actor) -> None:
        """By now it is known how the process before has ended."""
        life = before.runner.lifecycle
        if life.last_exit is not None:
            fresh.runner.post(ev.TookOver(life.restarts + 1, life.last_exit))

    # progress

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
        life = (of or self.place.current).runner.lifecycle
        tell(
            Replacement(
                worker=self.place.spec.name,
                stage=stage,
                detail=detail,
                fraction=life.loading_fraction,
                pid=life.pid,
                epoch=life.epoch,
            )
        )


def _nobody(_: Replacement) -> None:
    """Nobody asked, so nobody is told."""


def _comes_back(actor: Actor) -> bool:
    """Whether it has no worker because that one died, and another one follows."""
    life = actor.runner.lifecycle
    was_given_up = life.giving_up is not None and life.giving_up not in ASKED
    return actor.stage.worker is None and (_is_coming(actor) or was_given_up)


def _can_replay(before: Actor, fresh: Actor) -> bool:
    return rules.can_replay(before.runner.spec.config, fresh.runner.spec.config)


def _is_coming(actor: Actor) -> bool:
    return actor.runner.lifecycle.state in COMING_UP | {WorkerState.BACKOFF}


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


def _is_up_or_down(candidate: Actor) -> bool:
    """Whether a candidate is ready, or has failed: it is not tried a second time."""
    life = candidate.runner.lifecycle
    if life.state in SERVING or candidate.runner.defect is not None:
        return True
    return life.last_exit is not None
