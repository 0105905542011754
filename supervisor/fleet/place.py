"""One worker's place: the incarnation that serves, the candidate, and the retiring ones.

`replacer.py` decides when one takes over from another, but for one case: a hot candidate serves in
the same call in which the current worker is lost.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

import msgspec

from gpufc.config import ModelConfig
from gpufc.errors import Overloaded
from supervisor.fleet import events as ev
from supervisor.fleet.condition import START_S
from supervisor.fleet.exit_reason import ASKED, ExitReason, Reason
from supervisor.fleet.incarnation import Incarnation, MakeRunner
from supervisor.fleet.kept_kv import KeptKv
from supervisor.fleet.port import (
    Condition,
    ConditionStatus,
    FleetListener,
    SpareState,
    SpareStatus,
    WorkerStatus,
)
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.states import WorkerState
from supervisor.fleet.worker import WorkerSpec

logger = logging.getLogger(__name__)

BUSY_S = 5.0
"""When to ask again while a worker is being replaced."""


class PlaceState(StrEnum):
    """Whether a place has a worker, and whether that is being replaced."""

    ABSENT = "absent"
    """No process, and none is started: the place waits for `start`."""
    SERVING = "serving"
    """The current incarnation serves, or comes back by its own restart policy."""
    REPLACING = "replacing"
    """A hot candidate takes over only when the replacement says so."""
    VACANT = "vacant"
    """In a replacement without memory for two: nothing serves until the candidate does."""
    LEAVING = "leaving"
    """The worker is being ended; ABSENT follows."""


class Place:
    """One place of a fleet. Made by the fleet, in the event loop; `close` ends everything in it.

    Invariants: each incarnation is current, the candidate or retiring. The listener hears the
    current one and retiring ones that drain. A retiring one is forgotten once it has no process.
    Only the place's own methods change its state.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        make: MakeRunner,
        listener: Callable[[], FleetListener | None],
        became_ready: Callable[[bool], None],
        kept: KeptKv | None = None,
    ) -> None:
        """`kept` takes the KV of a worker that is unloaded, and gives it to the next one."""
        self.spec = spec
        """What is meant to serve here. `serve` changes it."""
        self.candidate: Incarnation | None = None
        self.n_changes = 0
        self._state = PlaceState.ABSENT
        self._make = make
        self._listener = listener
        self._became_ready = became_ready
        self._kept = kept or KeptKv(0)
        self._changed = asyncio.Event()
        self._retiring: list[Incarnation] = []
        self._burials: set[asyncio.Task[None]] = set()
        self.current = self._incarnation(spec, is_heard=True)

    # questions

    @property
    def state(self) -> PlaceState:
        """Whether it has a worker, and whether that is being replaced."""
        return self._state

    @property
    def is_busy(self) -> bool:
        """Whether a replacement is going on: no other one may begin."""
        return self._state in {PlaceState.REPLACING, PlaceState.VACANT}

    @property
    def runner(self) -> WorkerRunner:
        """The current incarnation's runner."""
        return self.current.runner

    @property
    def has_worker(self) -> bool:
        """Whether the current incarnation has a ready worker now."""
        return self.current.worker is not None

    @property
    def is_loading(self) -> bool:
        """Whether its process comes up, or is about to be started for the first time."""
        is_about_to = self._state is PlaceState.SERVING and self.runner.is_stopped
        return is_about_to or self.runner.is_coming_up

    @property
    def hot(self) -> Incarnation | None:
        """The candidate, if it can take over at once."""
        found = self.candidate
        return found if found is not None and found.worker is not None else None

    @property
    def is_retiring(self) -> bool:
        """Whether workers that were replaced still have a process."""
        return bool(self._retiring)

    @property
    def is_settled(self) -> bool:
        """Whether its worker serves, or there is no process and none is coming up. A candidate
        does not count."""
        is_changing = self.is_busy or self._state is PlaceState.LEAVING or self._retiring
        return not is_changing and self.runner.is_settled

    def condition(self) -> Condition:
        """Whether a token could be produced now."""
        if self._state is PlaceState.SERVING and self.runner.is_stopped:
            return Condition(ConditionStatus.LOADING, "not started yet", START_S)
        if self._state is not PlaceState.VACANT:
            return self.runner.condition()
        if self.candidate is None:
            return Condition(ConditionStatus.RESTARTING, "the model is being changed", START_S)
        loading = self.candidate.runner.condition()
        # requests wait, whatever state it is in: nothing has failed yet
        return Condition(ConditionStatus.LOADING, loading.detail, loading.retry_after_s)

    def workers(self) -> list[WorkerStatus]:
        """The current worker's row, then the rows of retiring workers that still have streams."""
        old = [one.runner.status() for one in self._retiring if one.is_heard]
        return [self.runner.status(), *(row for row in old if row.pid is not None)]

    def spares(self) -> list[SpareStatus]:
        """The candidate's row, if it has a process."""
        found = self.candidate
        if found is None:
            return []
        row = found.runner.status()
        if row.pid is None:
            return []
        return [SpareStatus(pid=row.pid, state=_spare_state(found, row), rss_bytes=row.rss_bytes)]

    def runners(self) -> list[WorkerRunner]:
        """The runners of all incarnations."""
        return [one.runner for one in self._incarnations()]

    async def wait_changed(self, since: int) -> None:
        """Wait until `n_changes` is not `since`."""
        while self.n_changes == since:
            await self._changed.wait()

    # its life

    def start(self, config: ModelConfig | None = None, *, on_demand: bool = False) -> None:
        """ABSENT → SERVING: begin to start the worker. Else it does nothing.

        `config` is for this worker and its restarts, instead of the place's own. `on_demand`: a
        request waits for it."""
        if self._state is PlaceState.ABSENT:
            self._state = PlaceState.SERVING
            wanted = self.spec.config if config is None else config
            self.runner.spec = msgspec.structs.replace(self.spec, config=wanted)
            self.current.start(is_awaited=on_demand)

    def respecify(self, spec: WorkerSpec) -> None:
        """ABSENT or LEAVING: the next worker has another spec."""
        if self._state not in {PlaceState.ABSENT, PlaceState.LEAVING}:
            raise RuntimeError(f"{self.spec.name} has a worker")
        self.spec = spec

    async def unload(self, reason: Reason) -> None:
        """SERVING → LEAVING → ABSENT. Returns when no process is left. `reason` is one of
        `ASKED`. No replacement may be going on."""
        if self._state is not PlaceState.SERVING:
            return
        self._state = PlaceState.LEAVING
        await self.dismiss()
        if (worker := self.current.worker) is not None:
            await self._kept.keep(worker)
        self.current.runner.post(ev.StopRequested(reason=reason))
        await self.wait_stopped()
        self._state = PlaceState.ABSENT
        self._wake()

    def request_stop(self, *, now: bool) -> None:
        """Begin to end everything."""
        for one in self._incarnations():
            one.runner.post(ev.StopRequested(now))

    async def wait_stopped(self) -> None:
        """Wait until no process is left."""
        for one in list(self._incarnations()):
            await one.wait_stopped()

    async def close(self) -> None:
        """After the processes have ended, or cannot be ended."""
        burials, self._burials = self._burials, set()
        for task in burials:
            task.cancel()
        await asyncio.gather(*burials, return_exceptions=True)
        for one in list(self._incarnations()):
            await one.close()

    # replacements

    @contextmanager
    def begin_replacement(self) -> Iterator[None]:
        """SERVING → REPLACING, and back to SERVING at the end, however it ends.

        Raises `Overloaded` during another replacement.
        """
        if self._state is not PlaceState.SERVING:
            what = "being replaced" if self.is_busy else "not in memory"
            raise Overloaded(
                f"worker {self.spec.name} is {what} just now; try again", retry_after_s=BUSY_S
            )
        self._state = PlaceState.REPLACING
        try:
            yield
        finally:
            self._state = PlaceState.SERVING
            self._wake()

    def vacate(self) -> None:
        """REPLACING → VACANT: the current incarnation ends before the candidate is loaded."""
        self._require_replacement()
        self._state = PlaceState.VACANT

    def serve(self, spec: WorkerSpec) -> None:
        """→ SERVING: the replacement has succeeded, and `spec` is meant to serve from now on."""
        self._require_replacement()
        self.spec = spec
        self._state = PlaceState.SERVING

    async def nominate(self, spec: WorkerSpec) -> Incarnation:
        """Begin to start a new candidate. The candidate before it is ended first. Requests wait for
        the new one unless the current worker serves them."""
        await self.dismiss()
        self.candidate = self._incarnation(spec, is_heard=False)
        self.candidate.start(is_awaited=not self.has_worker)
        return self.candidate

    async def dismiss(self) -> None:
        """End the candidate, if there is one."""
        candidate, self.candidate = self.candidate, None
        if candidate is not None:
            self.retire(candidate, ev.StopRequested(now=True))
            await candidate.wait_stopped()

    def retire_canary(self) -> None:
        """The candidate, which serves a share of the requests, ends once its streams have."""
        candidate, self.candidate = self.candidate, None
        if candidate is not None:
            self.retire(candidate)
            candidate.drain()
            if candidate.worker is None and not candidate.runner.comes_back:
                candidate.runner.post(ev.StopRequested(now=True))

    def promote(self, end: ExitReason) -> Incarnation:
        """Let the candidate serve from now on. Returns the one before it, which ends as `end`."""
        if self.candidate is None:
            raise AssertionError("no candidate to promote")
        before, self.current, self.candidate = self.current, self.candidate, None
        self.runner.post(ev.TookOver(before.runner.status().restarts + 1, end))
        self.current.announce()
        self._became_ready(False)
        return before

    def retire(self, incarnation: Incarnation, *events: ev.Event) -> None:
        """Let it end after these events, or once it is drained, and forget it then."""
        self._retiring.append(incarnation)
        for event in events:
            incarnation.runner.post(event)
        task = asyncio.create_task(self._bury(incarnation))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    async def _bury(self, incarnation: Incarnation) -> None:
        runner = incarnation.runner
        await runner.wait_until(lambda: runner.is_stopped or runner.has_failed)
        if runner.has_failed:  # a retired one has no operator
            runner.post(ev.StopRequested(now=True))
        await incarnation.wait_stopped()
        self._retiring.remove(incarnation)
        await incarnation.close()
        self._wake()

    def _incarnations(self) -> Iterator[Incarnation]:
        yield self.current
        if self.candidate is not None:
            yield self.candidate
        yield from self._retiring

    def _incarnation(self, spec: WorkerSpec, *, is_heard: bool) -> Incarnation:
        return Incarnation(
            spec,
            self._make,
            self._listener,
            is_heard=is_heard,
            changed=self._wake,
            lost=self._on_lost,
            welcome=self._kept.give,
        )

    def _on_lost(self, incarnation: Incarnation, reason: ExitReason) -> None:
        """The current worker is gone: a hot candidate serves in the same call."""
        if incarnation is not self.current or reason.reason in ASKED:
            return
        if self.is_busy or self.hot is None:
            return
        logger.info("hot_spare_takes_over worker=%s", self.spec.name)
        before = self.promote(reason)
        before.withdraw()
        self.candidate = before  # its own policy starts it again, and it becomes the next one

    def _require_replacement(self) -> None:
        if not self.is_busy:
            raise AssertionError("no replacement has begun")

    def _wake(self) -> None:
        self.n_changes += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _spare_state(candidate: Incarnation, row: WorkerStatus) -> SpareState:
    if candidate.worker is not None:
        return SpareState.HOT
    return SpareState.STARTING if row.state is WorkerState.STARTING else SpareState.LOADING
