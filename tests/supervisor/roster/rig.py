"""A roster over scripted workers: no processes, and a clock that the test moves."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import msgspec

from gpufc.config import BackendKind, Config, FleetConfig, ModelConfig, Standby
from gpufc.errors import EngineUnavailable
from gpufc.ids import Epoch
from supervisor.dispatch.usage import Usage
from supervisor.fleet.group import Group
from supervisor.fleet.ladder import Timings
from supervisor.fleet.maker import Maker
from supervisor.fleet.model_state import ModelState
from supervisor.fleet.port import WorkerHandle, WorkerMessage
from supervisor.fleet.watchdog import LIMITS
from supervisor.fleet.worker import Hooks
from supervisor.residency.measured import Measured
from supervisor.residency.memory import Free
from supervisor.roster.needs import Needs
from supervisor.roster.roster import Roster
from supervisor.roster.shown import ShownModels
from tests.supervisor.fleet.scripted import Scripted

GIB = 1 << 30


class FakeDemand:
    """Requests that a test sets. Hears the fleet as dispatch does."""

    def __init__(self) -> None:
        self.changed: Callable[[str | None], None] = lambda _model: None
        self.waiting: dict[str, int] = {}
        self.open_by: dict[str, int] = {}
        self.workers: dict[str, list[Epoch]] = {}
        self.closed: set[Epoch] = set()
        self.refused: list[tuple[str, EngineUnavailable]] = []
        self.forgotten: list[str] = []

    def usage(self, model: str) -> Usage:
        epochs = self.workers.get(model, [])
        return Usage(
            self.waiting.get(model, 0),
            dict.fromkeys(epochs, self.open_by.get(model, 0)),
            any(epoch not in self.closed for epoch in epochs),
        )

    def open(self, model: str, epoch: Epoch, *, is_open: bool) -> None:
        (self.closed.discard if is_open else self.closed.add)(epoch)

    def refuse(self, model: str, error: EngineUnavailable) -> None:
        if not self.workers.get(model):
            self.refused.append((model, error))
            self.waiting.pop(model, None)

    def forget(self, model: str) -> None:
        self.forgotten.append(model)

    # the fleet's listener

    def worker_ready(self, worker: WorkerHandle) -> None:
        self.workers.setdefault(worker.model, []).append(worker.epoch)
        self.waiting.pop(worker.model, None)
        self.changed(None)

    def canary_began(self, worker: WorkerHandle, canary: object) -> None: ...
    def worker_message(self, worker: WorkerHandle, message: WorkerMessage) -> None: ...
    def worker_draining(self, worker: WorkerHandle) -> None: ...

    def worker_lost(self, worker: WorkerHandle, reason: object) -> None:
        self.workers[worker.model].remove(worker.epoch)
        self.changed(None)

    def engine_proven(self, worker: WorkerHandle) -> None: ...
    def engine_renewed(self, model: str) -> None: ...

    def condition_changed(self) -> None:
        self.changed(None)


class FakeFleet:
    """Groups over scripted workers."""

    def __init__(self, config: Config, demand: FakeDemand, clock: Callable[[], float]) -> None:
        self.edge = Scripted()
        self.maker = Maker(
            config,
            self.edge,
            listener=lambda: demand,
            hooks=Hooks(),
            timings=Timings(),
            watch=LIMITS,
            rng=random.Random(1),
            clock=clock,
        )
        self.groups = {
            name: self.maker.group(name, name, one) for name, one in config.models.items()
        }
        self.withdrawn: dict[str, Group] = {}
        self.removed: list[str] = []
        self.made_room: list[int] = []
        self.n_loads_for_requests = 0

    def make_room(self, n_bytes: int) -> None:
        self.made_room.append(n_bytes)

    def loads_for_a_request(self) -> None:
        self.n_loads_for_requests += 1

    def models(self) -> list[str]:
        return list(self.groups)

    def group(self, model: str) -> Group:
        return self.groups[model]

    def withdraw(self, model: str) -> None:
        self.withdrawn[model] = self.groups.pop(model)

    async def remove(self, model: str) -> None:
        await self.withdrawn.pop(model).close()
        self.removed.append(model)

    async def close(self) -> None:
        for group in [*self.groups.values(), *self.withdrawn.values()]:
            group.request_stop(now=True)
            for place in group.places:
                await place.wait_stopped()
            await group.close()
        await self.maker.kept.close()


class Rig:
    """Models `a`, `b`, … of one GiB each, in memory for `fits` of them."""

    def __init__(self, folder: Path, *, fits: int | None, **models: ModelConfig) -> None:
        self.now = 1000.0
        self.own_bytes = GIB
        """What each worker's process is measured with."""
        self.paths: dict[str, str] = {}
        sections = {}
        for name, config in models.items():
            path = folder / f"{name}.gguf"
            with path.open("wb") as file:
                file.truncate(GIB)
            self.paths[name] = str(path)
            sections[name] = _section(config, str(path), name)
        limit = None if fits is None else fits * GIB + GIB // 2
        fleet = FleetConfig(memory_limit_bytes=limit, standby=Standby.NONE, recycle_growth_bytes=0)
        self.config = Config(models=sections, fleet=fleet)
        self.demand = FakeDemand()
        self.fleet = FakeFleet(self.config, self.demand, lambda: self.now)
        needs = Needs(Measured())
        self.roster = Roster(
            self.fleet,
            self.demand,
            self.config,
            needs,
            lambda: Free(at=self.now, host_bytes=64 * GIB),
            clock=lambda: self.now,
            measure=lambda _pid: self.own_bytes,
        )
        self.shown = ShownModels(self.roster, self.fleet, self.demand, needs, lambda: self.now)
        self.roster.start()

    def want(self, model: str, n: int = 1) -> None:
        """Requests wait for a model."""
        self.demand.waiting[model] = n
        self.demand.changed(model)

    def use(self, model: str, n_open: int) -> None:
        """So many sequences of a loaded model run."""
        self.demand.open_by[model] = n_open
        self.demand.changed(model)

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.roster.poke()

    def state(self, model: str) -> ModelState:
        return self.shown.state(model)

    @property
    def states(self) -> dict[str, str]:
        return {model: str(self.state(model).state) for model in self.fleet.models()}

    @property
    def n_loads(self) -> dict[str, int]:
        return dict(self.roster.workers.n_loads)

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110 - any object's state, which has no event
                await asyncio.sleep(0.001)

    async def until_state(self, model: str, state: str) -> None:
        await self.until(lambda: self.states.get(model) == state)

    async def settle(self) -> None:
        """Let the roster look several times, and what it begins make its first steps."""
        for _ in range(5):
            self.roster.poke()
            await self.roster.looked()

    async def close(self) -> None:
        await self.roster.stop()
        await self.fleet.close()


def _section(config: ModelConfig, path: str, name: str) -> ModelConfig:
    return msgspec.structs.replace(
        config, model_path=path, model=name, backend=BackendKind.FAKE, use_mmap=False
    )
