"""Restart, swap, recycling and hot standby of one worker's place, one replacement at a time.

`replacement_rules.py` decides the fate of a candidate. Here it is loaded, tried and promoted.
Upkeep (recycling, a hot spare) gives way to operators' requests.
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
from supervisor.fleet.canary_run import prove
from supervisor.fleet.exit_reason import ExitReason, Reason
from supervisor.fleet.incarnation import Incarnation
from supervisor.fleet.kv_handover import hand_over, limit
from supervisor.fleet.place import BUSY_S, Place
from supervisor.fleet.port import (
    ModelChange,
    OnReplacement,
    Replacement,
    ReplacementStage,
    not_followed,
)
from supervisor.fleet.replacement_rules import CandidateFailed, CandidateFailure
from supervisor.fleet.worker import Worker, WorkerSpec
from supervisor.routing.canary import CanaryRules

logger = logging.getLogger(__name__)


class Replacer:
    """Replaces the worker of one place; no other object does. In the event loop."""

    def __init__(
        self,
        place: Place,
        restarted: Callable[[Reason], None],
        *,
        handover_kv_bytes: int | None = 0,
    ) -> None:
        """`restarted` is called at each takeover. At most `handover_kv_bytes` of computed KV are
        carried from a worker to its successor; with None it depends on the worker."""
        self.place = place
        self._restarted = restarted
        self._handover_kv_bytes = handover_kv_bytes
        self._upkeep: asyncio.Task[None] | None = None
        """Recycling, or the loading of a hot spare."""

    # operators' requests

    async def restart(self, *, now: bool, tell: OnReplacement) -> None:
        """Replace the process: the new one first, where both fit.

        Raises `Overloaded` during another replacement. Raises `EngineUnavailable` when the new
        worker cannot take over and the old one serves on, or when none serves.
        """
        await self._end_upkeep()
        await self._restart(Reason.RESTARTED, now=now, tell=tell)

    async def swap(self, change: ModelChange, *, tell: OnReplacement) -> None:
        """Serve another model. Raises `SwapRefused` if the old one serves on, `Overloaded`."""
        await self.serve(rules.swapped(self.place.spec, change), change.canary, tell=tell)

    async def serve(
        self, wanted: WorkerSpec, canary: CanaryRules | None = None, *, tell: OnReplacement
    ) -> None:
        """Serve with a worker of another spec. Raises as `swap`."""
        await self._end_upkeep()
        place = self.place
        with place.begin_replacement():
            try:
                await self._tried(self._next_to_current(wanted), tell)
                if canary is not None:
                    await prove(place, canary, tell)
                await self._take_over(Reason.SWAPPED, tell)
            except CandidateFailed as err:
                verdict = rules.after_failed_swap(err.failure, freed_bytes=self._freed_bytes())
                if verdict is rules.Verdict.GIVE_UP:
                    raise SwapRefused(f"{err}; the model before goes on serving") from err
                await self._swap_stop_first(wanted, tell)
            place.serve(wanted)

    def note(self, wanted: WorkerSpec) -> None:
        """Let the next worker have another spec. Raises `Overloaded` during a replacement."""
        with self.place.begin_replacement():
            self.place.serve(wanted)

    # upkeep

    async def recycle(self) -> None:
        """Replace a worker that has grown too much. Raises as `restart` does."""
        await self._keep_up(self._restart(Reason.RECYCLED, now=False, tell=not_followed))

    async def keep_hot(self) -> None:
        """Load and try a candidate, if there is none. Raises `CandidateFailed`."""
        await self._keep_up(self._warm_up())

    async def _keep_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it, unless another replacement is going on. It may be ended by `_end_upkeep`."""
        if self.place.is_busy or self._upkeep is not None or not self.place.has_worker:
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
        """Break off the loading of a hot spare; wait for a recycling, which takes seconds."""
        task = self._upkeep
        if task is not None and not self.place.is_busy:
            task.cancel()
        if task is not None:
            await asyncio.wait({task})

    async def _warm_up(self) -> None:
        former = self.place.candidate
        is_coming = former is not None and former.runner.comes_back  # after its death
        if self.place.hot is None and not is_coming:
            await self._tried(self._like_now(), not_followed)

    # restart

    async def _restart(self, reason: Reason, *, now: bool, tell: OnReplacement) -> None:
        with self.place.begin_replacement():
            if now or not self.place.has_worker:
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
        """The spec of a second worker that gets the same cells and layers as the first."""
        worker, spec = self.place.runner.worker, self.place.spec
        config = rules.pinned(spec.config, worker.facts if worker else None)
        return msgspec.structs.replace(spec, config=config)

    async def _restart_in_place(self, tell: OnReplacement, *, now: bool) -> None:
        """Stop, start, replay."""
        current, runner = self.place.current, self.place.runner
        epoch = runner.status().epoch
        runner.post(ev.RestartRequested(now))
        await self._followed(current, tell, lambda: runner.has_settled_since(epoch))
        if runner.worker is None:
            condition = runner.condition()
            raise EngineUnavailable(condition.detail, retry_after_s=condition.retry_after_s)
        self._say(tell, ReplacementStage.READY)

    # swap

    def _next_to_current(self, wanted: WorkerSpec) -> WorkerSpec:
        """The spec of a candidate that is loaded while the old worker holds its memory."""
        worker = self.place.runner.worker
        config = rules.with_all_gpu_layers(wanted.config, worker.facts if worker else None)
        return msgspec.structs.replace(wanted, config=config)

    def _freed_bytes(self) -> int:
        """Memory that the end of the current worker would give back."""
        runner = self.place.runner
        return rules.freed_bytes(runner.status().facts, runner.anonymous_bytes() or 0)

    async def _swap_stop_first(self, wanted: WorkerSpec, tell: OnReplacement) -> None:
        """End the old worker, since both do not fit, then try the new one again.

        Raises `SwapRefused`: the old one has been loaded again, or cannot be.
        """
        place, old = self.place, self.place.current
        place.vacate()
        if rules.can_replay(place.spec.config, wanted.config):
            self._say(tell, ReplacementStage.STOPPING, "there is not room for both")
            old.runner.post(ev.StopRequested(reason=Reason.SWAPPED))
        else:
            self._say(tell, ReplacementStage.DRAINING, "there is not room for both")
            old.drain()
            if old.worker is None:
                old.runner.post(ev.StopRequested(reason=Reason.SWAPPED))
        await old.wait_stopped()
        try:
            await self._tried(wanted, tell)
            await self._take_over(Reason.SWAPPED, tell)
        except CandidateFailed as err:
            self._say(tell, ReplacementStage.ROLLING_BACK, str(err))
            raise SwapRefused(f"{err}; {await self._rolled_back(old)}") from err

    async def _rolled_back(self, old: Incarnation) -> str:
        """Start the old worker again. Returns the outcome, for people."""
        old.undrain()
        old.runner.post(ev.StartRequested())
        await old.runner.wait_until(lambda: old.runner.is_up_or_failed)
        if old.worker is not None:
            return "it was loaded in the place of the model before, which is loaded again"
        return f"and the model before cannot be loaded again: {old.runner.condition().detail}"

    # candidates

    async def _tried(self, spec: WorkerSpec, tell: OnReplacement) -> None:
        """Get a candidate of this spec that has passed its trial: the hot one, or a new one.

        Raises `CandidateFailed`, and leaves no candidate.
        """
        hot = self.place.hot
        if hot is not None and hot.runner.spec == spec:
            return
        fresh = await self.place.nominate(spec)
        try:
            await self._followed(fresh, tell, lambda: fresh.runner.is_up_or_has_died)
            if fresh.worker is None:
                if (awaited := fresh.runner.awaited) is not None:
                    raise CandidateFailed(CandidateFailure(awaited, no_machine=True))
                last_exit = fresh.runner.status().last_exit
                raise CandidateFailed(rules.candidate_failed(last_exit, fresh.runner.shortage))
        except BaseException:
            await self.place.dismiss()
            raise

    async def _take_over(self, reason: Reason, tell: OnReplacement) -> None:
        """Let the candidate serve from now on.

        Raises `CandidateFailed` if it has died since its trial, and leaves no candidate.
        """
        place, fresh = self.place, self.place.candidate
        old, new = place.runner.worker, fresh.worker if fresh else None
        continues = False
        if old is not None and new is not None and rules.continues(old.facts, new.facts):
            continues = True
            await hand_over(old, new, self._kv_limit(old, new))
        if fresh is None or fresh.worker is None:
            await place.dismiss()
            raise CandidateFailed(CandidateFailure("it died before it took over"))
        before = place.promote(ExitReason(reason=reason, at=time.time()))
        self._restarted(reason)
        # the streams of a worker that has just died may be able to go on with its model only
        is_needed = before.runner.comes_back and not _can_replay(before, fresh)
        if continues or (before.worker is None and not is_needed):
            place.retire(before, ev.StopRequested(reason=reason))
            await before.wait_stopped()
            self._continue_record(fresh, before)
        else:
            place.retire(before)
            before.drain()
        self._say(tell, ReplacementStage.READY)

    def _kv_limit(self, old: Worker, new: Worker) -> int:
        """The most bytes of KV to carry. A memory file is only for the front's own machine."""
        if old.machine is not None or new.machine is not None:
            return 0
        return limit(self._handover_kv_bytes, old.facts, new.facts)

    @staticmethod
    def _continue_record(fresh: Incarnation, before: Incarnation) -> None:
        """Replace the assumed end of the process before by the one that was seen."""
        row = before.runner.status()
        if row.last_exit is not None:
            fresh.runner.post(ev.TookOver(row.restarts + 1, row.last_exit))

    # progress

    async def _followed(
        self, incarnation: Incarnation, tell: OnReplacement, holds: Callable[[], bool]
    ) -> None:
        """Wait for a condition of a runner, and report the progress of its loading and trial."""

        def look() -> bool:
            if incarnation.worker is None:
                trying = incarnation.runner.is_trying
                stage = ReplacementStage.TRYING if trying else ReplacementStage.LOADING
                self._say(tell, stage, of=incarnation)
            return holds()

        await incarnation.runner.wait_until(look)

    def _say(
        self,
        tell: OnReplacement,
        stage: ReplacementStage,
        detail: str = "",
        of: Incarnation | None = None,
    ) -> None:
        row = (of or self.place.current).runner.status()
        tell(
            Replacement(
                worker=self.place.spec.name,
                stage=stage,
                detail=detail,
                fraction=row.loading_fraction,
                pid=row.pid,
                epoch=row.epoch,
            )
        )


def _can_replay(before: Incarnation, fresh: Incarnation) -> bool:
    return rules.can_replay(before.runner.spec.config, fresh.runner.spec.config)
