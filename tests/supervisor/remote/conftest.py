"""Runners whose processes run on machines, over fake channels to the hosts."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Callable

import pytest

from gpufc.config import ModelConfig
from gpufc.ids import Epoch, WorkerName
from supervisor.fleet import events as ev
from supervisor.fleet.crash_record import CrashRecord
from supervisor.fleet.ladder import Timings
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.restart_policy import RestartPolicy
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.states import WorkerState
from supervisor.fleet.worker import Hooks, WorkerSpec
from supervisor.remote.machines import Machines
from tests.fakes.child_worker import ready
from tests.supervisor.fleet.conftest import Recorder
from tests.supervisor.remote.fake_channel import FakeChannel


class Line:
    """A runner with its lifecycle, whose processes run on the bench's machines."""

    def __init__(
        self, name: str, machines: Machines, epochs: Callable[[], Epoch], model_path: str
    ) -> None:
        self.listener = Recorder()
        self.crashes: list[CrashRecord] = []
        policy = RestartPolicy(100, random.Random(1))
        self.life = WorkerLifecycle(policy, Timings(), epochs, is_placed=True)
        self.spec = WorkerSpec(
            name=WorkerName(name),
            model="m",
            config=ModelConfig(model_path=model_path),
            n_sequences=4,
            log_level="info",
            is_remote=True,
        )
        edge = machines.edge()
        hooks = Hooks(crashed=self.crashes.append)
        self.runner = WorkerRunner(self.spec, self.life, edge, self.listener, hooks, placer=edge)
        self.task = asyncio.create_task(self.runner.run())
        self.runner.post(ev.Adopted())  # no trial
        self.runner.post(ev.StartRequested())

    async def until(self, state: WorkerState) -> None:
        async with asyncio.timeout(60):
            await self.runner.wait_until(lambda: self.life.state is state)

    async def until_it_waits(self) -> None:
        async with asyncio.timeout(60):
            await self.runner.wait_until(lambda: self.runner.awaited is not None)


class Bench:
    def __init__(self) -> None:
        self.now = 1000.0
        self.machines = Machines(1, 5.0, clock=lambda: self.now)
        self.lines: list[Line] = []
        numbers = itertools.count(1)
        self._epochs = lambda: Epoch(next(numbers))

    def line(self, name: str = "m-0", model_path: str = "/m.gguf") -> Line:
        """A line of a model that the front itself does not have, unless its file is given."""
        self.lines.append(Line(name, self.machines, self._epochs, model_path))
        return self.lines[-1]

    def host(self, machine: str, **options: object) -> FakeChannel:
        channel = FakeChannel(machine, self.machines, **options)  # type: ignore[arg-type]
        channel.heard_at = self.now
        channel.adoptions = list(self.machines.joined(channel))  # type: ignore[attr-defined]
        return channel

    async def ready_on(self, line: Line, channel: FakeChannel) -> Epoch:
        await line.until(WorkerState.STARTING)
        epoch = channel.bring_up()
        channel.say(ready(epoch))
        await line.until(WorkerState.READY)
        return epoch

    def close(self) -> None:
        self.machines.close()
        for line in self.lines:
            line.task.cancel()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()
