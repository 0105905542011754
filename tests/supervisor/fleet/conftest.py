"""A fleet over children that misbehave, and a listener that remembers."""

import asyncio
import os
import random
import select
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gpufc.config import Config, FleetConfig, ModelConfig, Standby
from gpufc.ids import Epoch
from supervisor.fleet.exit_reason import ExitReason
from supervisor.fleet.fleet import Fleet
from supervisor.fleet.ladder import Timings
from supervisor.fleet.port import WorkerHandle, WorkerMessage
from supervisor.fleet.standby import Spare
from supervisor.fleet.watchdog import LIMITS, WatchLimits
from supervisor.routing.canary import Canary
from supervisor.runtime_dir import RuntimeDir

CHILD = str(Path(__file__).parents[2] / "fakes" / "child_worker.py")

QUICK = Timings(
    start_s=60.0,
    load_s=60.0,
    shutdown_s=0.5,
    terminate_s=0.3,
    dump_s=30.0,
    kill_s=60.0,
    spare_s=0.2,
)
"""A Python child on a busy machine has the time to say hello and to dump its stacks. Rungs that a
misbehaving child lets pass are short."""


LIMIT_S = 60.0
"""A process that has not ended by then will not end."""


def end(pid: int) -> None:
    """Kill a process and block this thread, the loop's, until the process has ended."""
    pidfd = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        assert select.select([pidfd], [], [], LIMIT_S)[0]
    finally:
        os.close(pidfd)


class Recorder:
    """A `FleetListener` that records calls and wakes the waiting test."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ready: list[WorkerHandle] = []
        self.messages: list[WorkerMessage] = []
        self.lost: list[ExitReason] = []
        self.proven: list[Epoch] = []
        self.renewed: list[str] = []
        self.canaries: list[Canary] = []
        self._changed = asyncio.Event()

    def worker_ready(self, worker: WorkerHandle) -> None:
        self.calls.append(f"ready {worker.epoch}")
        self.ready.append(worker)
        self._wake()

    def canary_began(self, worker: WorkerHandle, canary: Canary) -> None:
        self.calls.append(f"canary {worker.epoch}")
        self.canaries.append(canary)
        self._wake()

    def worker_message(self, worker: WorkerHandle, message: WorkerMessage) -> None:
        self.calls.append(f"message {worker.epoch}")
        self.messages.append(message)
        self._wake()

    def worker_draining(self, worker: WorkerHandle) -> None:
        self.calls.append(f"draining {worker.epoch}")
        self._wake()

    def worker_lost(self, worker: WorkerHandle, reason: ExitReason) -> None:
        self.calls.append(f"lost {worker.epoch}")
        self.lost.append(reason)
        self._wake()

    def engine_proven(self, worker: WorkerHandle) -> None:
        self.proven.append(worker.epoch)
        self._wake()

    def engine_renewed(self, model: str) -> None:
        self.renewed.append(model)
        self._wake()

    def condition_changed(self) -> None:
        self._wake()

    async def until(self, holds: Callable[[], object], timeout_s: float = 60.0) -> None:
        """Wait for a condition that only calls of this listener can change."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                await self._changed.wait()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Started:
    """A fleet under test with all that belongs to it."""

    def __init__(self, fleet: Fleet, listener: Recorder, runtime: RuntimeDir) -> None:
        self.fleet = fleet
        self.listener = listener
        self.runtime = runtime

    @property
    def status(self):  # type: ignore[no-untyped-def]
        return self.fleet.workers()[0]

    @property
    def log(self) -> str:
        return self.runtime.worker_log(self.status.name).read_text()

    async def until_state(self, state: str) -> None:
        await self.listener.until(lambda: self.status.state == state)

    async def until_ready(self, times: int = 1) -> WorkerHandle:
        await self.listener.until(lambda: len(self.listener.ready) >= times)
        return self.listener.ready[times - 1]


StartFleet = Callable[..., Awaitable[Started]]


@pytest.fixture
def runtime(tmp_path: Path):  # type: ignore[no-untyped-def]
    runtime = RuntimeDir.acquire(str(tmp_path / "r"))
    yield runtime
    runtime.cleanup()


@pytest.fixture
async def start(runtime: RuntimeDir) -> AsyncIterator[StartFleet]:
    """Start a fleet whose one worker behaves as told; stopped at the end."""
    started: list[Started] = []

    async def start_fleet(
        behaviour: str,
        *,
        restart_limit: int = 1000,
        timings: Timings = QUICK,
        watch: WatchLimits = LIMITS,
        standby: Standby = Standby.NONE,
        spare: Spare | None = None,
    ) -> Started:
        config = Config(
            models={"default": ModelConfig(model_path="/models/tiny.gguf")},
            fleet=FleetConfig(restart_limit=restart_limit, standby=standby),
        )
        listener = Recorder()
        fleet = Fleet(
            config,
            runtime,
            listener,
            command=(sys.executable, CHILD, behaviour),
            timings=timings,
            watch=watch,
            rng=random.Random(7),
            spare=spare,
        )
        await fleet.start()
        started.append(Started(fleet, listener, runtime))
        return started[-1]

    yield start_fleet
    for each in started:
        await each.fleet.stop(now=True)
