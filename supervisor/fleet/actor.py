"""A runner with its stage and its task."""

import asyncio
import logging

from gpufc.ids import Epoch
from supervisor.fleet import events as ev
from supervisor.fleet.lifecycle import WorkerState
from supervisor.fleet.port import WorkerHandle
from supervisor.fleet.replacement_rules import CandidateFailed, CandidateFailure
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.stage import Stage
from supervisor.fleet.trial import Trial

logger = logging.getLogger(__name__)

TRIAL_S = 300.0
"""Only what the watchdog does not see takes that long: it knows a hung engine from one that is
reading its model from a slow disk."""


class Actor:
    """One of a place's runners. Owned by the place; made in the event loop."""

    def __init__(self, runner: WorkerRunner, stage: Stage) -> None:
        self.runner = runner
        self.stage = stage
        self.passed: WorkerHandle | None = None
        """The worker that has passed its trial; the next one of the runner has not."""
        self._task: asyncio.Task[None] | None = None
        stage.on_drain = lambda: runner.post(ev.DrainRequested())

    @property
    def is_hot(self) -> bool:
        """Whether its worker is ready, and known to work."""
        return self.passed is not None and self.passed is self.stage.worker

    def start(self) -> None:
        """Begin to start a process."""
        self._task = asyncio.create_task(self.runner.run(), name=f"fleet {self.runner.spec.name}")
        self.runner.post(ev.StartRequested())

    async def pass_trial(self) -> None:
        """Let its ready worker, of whom nobody hears yet, generate a little.

        Raises `CandidateFailed`.
        """
        worker, loop = self.stage.worker, asyncio.get_running_loop()
        if worker is None:
            raise CandidateFailed(CandidateFailure("it ended before its trial"))
        settled: asyncio.Future[str | None] = loop.create_future()
        trial = self.stage.trial = Trial(settled.set_result)
        timer = loop.call_later(TRIAL_S, trial.timed_out, TRIAL_S)
        trial.begin(worker)
        try:
            failure = await settled
        finally:
            timer.cancel()
            self.stage.trial = None
        if failure is not None:
            raise CandidateFailed(CandidateFailure(f"its trial failed: {failure}"))
        self.passed = worker
        logger.info("trial_passed worker=%s epoch=%d", worker.name, worker.epoch)

    def drain(self) -> None:
        """Let it end what has begun, whatever happens to it meanwhile."""
        self.stage.drain()

    async def wait_stopped(self) -> None:
        """Wait until it has no process and will start none."""
        await self.runner.wait_until(lambda: self.runner.lifecycle.state is WorkerState.STOPPED)

    def hand_over(self, successor: Epoch, endpoint: str, token: str) -> None:
        """See `WorkerRunner.hand_over`. Nothing that happens to the process matters here now."""
        if self._task is not None:
            self._task.cancel()
        self.runner.hand_over(successor, endpoint, token)

    async def close(self) -> None:
        """End its task and let go of what it holds."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.runner.close()
