"""All workers of a front, by the names that their models are served under.

Owns the runners and their tasks. Decides nothing about a worker's life (`lifecycle.py`) and nothing
about requests: whoever gets a worker's handle from `FleetListener.worker_ready` talks to it.
"""

import asyncio
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec

from gpufc.config import Config, ModelConfig, Standby
from gpufc.errors import EngineUnavailable, ModelNotFound, NotFound
from gpufc.ids import Epoch, WorkerName
from supervisor.fleet import events as ev
from supervisor.fleet.condition import FAILED_S, of_group, of_worker
from supervisor.fleet.crash_store import CrashStore, CrashWriter
from supervisor.fleet.edge import LocalEdge
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.ladder import Timings
from supervisor.fleet.lifecycle import COMING_UP, WorkerLifecycle, WorkerState
from supervisor.fleet.port import (
    Condition,
    ConditionStatus,
    FleetListener,
    SpareStatus,
    WorkerStatus,
)
from supervisor.fleet.process import WORKER_COMMAND
from supervisor.fleet.restart_policy import RestartPolicy
from supervisor.fleet.runner import Hooks, WorkerRunner, WorkerSpec
from supervisor.fleet.standby import SparePool
from supervisor.fleet.watchdog import LIMITS, WatchLimits
from supervisor.runtime_dir import RuntimeDir

logger = logging.getLogger(__name__)

MAX_SEQUENCES = 256
"""llama.cpp's own limit (`LLAMA_MAX_SEQ`), and that of the boot message."""

DEFAULT_GROUP = "default"
STOP_LIMIT_S = 30.0
"""Far over every ladder: only a process that the kernel cannot end takes longer."""


class Fleet:
    """Model name → group of workers. Made, started and stopped once, in the main thread's loop.

    `listener` may be set until `start`.
    """

    def __init__(
        self,
        config: Config,
        runtime: RuntimeDir,
        listener: FleetListener | None = None,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        timings: Timings | None = None,
        watch: WatchLimits = LIMITS,
        rng: random.Random | None = None,
    ) -> None:
        self.listener = listener
        self.restarts_total: Counter[Reason] = Counter()
        """Replacements started so far, by how the process before ended."""
        self._config = config
        self._timings = timings or Timings(load_s=config.fleet.load_timeout_s)
        self._rng = rng or random.Random()  # noqa: S311 - it spreads restarts, it hides nothing
        self._epochs = itertools.count(1)
        self._watch = watch
        self._crashes = CrashWriter(CrashStore(runtime.path))
        self._spares = self._spare_pool(runtime, command)
        self._edge = LocalEdge(runtime, command, self._spares)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        model = served_name(config.model)
        self._aliases = {model: _aliases(config.model, model)}
        self._groups = {model: [self._runner(DEFAULT_GROUP, 0, model, config.model)]}

    async def start(self) -> None:
        """Begin to start all workers. Returns at once; `worker_ready` tells the rest."""
        for runner in self._runners():
            self._tasks.append(asyncio.create_task(runner.run(), name=f"fleet {runner.spec.name}"))
            runner.post(ev.StartRequested())

    async def stop(self, *, now: bool = False) -> None:
        """End all workers and leave nothing behind. `now` kills; otherwise they are asked first.

        May be called again, also with `now` while another call is waiting.
        """
        self._stopping = True
        if self._spares is not None:
            self._spares.end()
        for runner in self._runners():
            runner.post(ev.StopRequested(now))
        if self._tasks:
            await self._wait_stopped()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for runner in self._runners():
            runner.close()
        if self._spares is not None:
            await self._spares.wait_ended()
        self._edge.close()
        await asyncio.to_thread(self._crashes.close)

    async def _wait_stopped(self) -> None:
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                for runner in self._runners():
                    await runner.wait_until(partial(_is_stopped, runner))
        except TimeoutError:
            logger.error("workers cannot be ended, the kernel holds them; left alone")

    def condition(self, model: str | None = None) -> Condition:
        """Whether a token could be produced now: by `model`, or by any without it.

        Raises `ModelNotFound`.
        """
        if self._stopping:
            return Condition(ConditionStatus.DRAINING, "the front is stopping", 1.0)
        runners = self._runners() if model is None else self._groups[self.resolve(model)]
        return of_group(_condition_of(runner) for runner in runners)

    def models(self) -> list[str]:
        """The names that models are served under."""
        return list(self._groups)

    def resolve(self, name: str | None) -> str:
        """The served name that a client's `model` means. Raises `ModelNotFound`.

        With one model served, no name and its aliases (file name, stem, `default`) mean it too.
        """
        if name is not None and name in self._groups:
            return name
        if len(self._groups) == 1:
            (only,) = self._groups
            if name is None or name in self._aliases[only]:
                return only
        if name is None:
            raise ModelNotFound("several models are served: name one", param="model")
        raise ModelNotFound(f"The model {name!r} does not exist", param="model")

    def workers(self) -> list[WorkerStatus]:
        """A row for each worker."""
        return [runner.status() for runner in self._runners()]

    def spares(self) -> list[SpareStatus]:
        """A row for each process that waits to take a worker's place."""
        return self._spares.rows() if self._spares else []

    async def restart(self, worker: WorkerName | None, *, now: bool = False) -> None:
        """Replace a worker's process, or all one after another; clears `failed`.

        Returns when the new ones are ready. Raises `NotFound` for an unknown name and
        `EngineUnavailable` when a new one fails for good. When cancelled, what has begun goes on.
        """
        chosen = [r for r in self._runners() if worker is None or r.spec.name == worker]
        if not chosen:
            raise NotFound(f"there is no worker {worker!r}", param="worker")
        for runner in chosen:
            epoch = runner.lifecycle.epoch
            runner.post(ev.RestartRequested(now))
            await runner.wait_until(partial(_settled, runner, epoch))
            condition = _condition_of(runner)
            if condition.status is ConditionStatus.FAILED or self._stopping:
                raise EngineUnavailable(condition.detail, retry_after_s=condition.retry_after_s)

    def _runners(self) -> list[WorkerRunner]:
        return [runner for group in self._groups.values() for runner in group]

    def _runner(self, group: str, index: int, model: str, config: ModelConfig) -> WorkerRunner:
        policy = RestartPolicy(self._config.fleet.restart_limit, self._rng)
        lifecycle = WorkerLifecycle(
            policy,
            self._timings,
            lambda: Epoch(next(self._epochs)),
            unix_offset_s=time.time() - time.monotonic(),
        )
        spec = WorkerSpec(
            name=WorkerName(f"{group}-{index}"),
            model=model,
            config=msgspec.structs.replace(config, model=model),
            n_sequences=min(self._config.admission.max_concurrent_requests, MAX_SEQUENCES),
            log_level=self._config.server.log_level,
        )
        hooks = Hooks(self._count, self._became_ready, self._crashes.submit)
        return WorkerRunner(spec, lifecycle, self._edge, lambda: self.listener, hooks, self._watch)

    def _spare_pool(self, runtime: RuntimeDir, command: Sequence[str]) -> SparePool | None:
        if self._config.fleet.standby is Standby.NONE:
            return None
        if self._config.fleet.standby is Standby.HOT:
            logger.warning("standby=hot is not there yet: the spare is a warm one")
        return SparePool(
            command,
            runtime.logs,
            self._config.model.backend,
            self._is_quiet,
            delay_s=self._timings.spare_s,
        )

    def _is_quiet(self) -> bool:
        return not any(runner.lifecycle.state in COMING_UP for runner in self._runners())

    def _became_ready(self) -> None:
        if self._spares is not None:
            self._spares.refill_soon()

    def _count(self, reason: Reason) -> None:
        self.restarts_total[reason] += 1


def served_name(config: ModelConfig) -> str:
    """The name that a model is served under: as configured, else the file's name."""
    if config.model is not None:
        return config.model
    return Path(config.model_path).stem if config.model_path else config.backend.value


def _aliases(config: ModelConfig, served: str) -> frozenset[str]:
    names = {served, DEFAULT_GROUP}
    if config.model_path is not None:
        path = Path(config.model_path)
        names |= {path.name, path.stem}
    return frozenset(names)


def _condition_of(runner: WorkerRunner) -> Condition:
    if runner.defect is not None:
        return Condition(ConditionStatus.FAILED, runner.defect, FAILED_S)
    return of_worker(runner.lifecycle, time.monotonic())


def _is_stopped(runner: WorkerRunner) -> bool:
    return runner.lifecycle.state is WorkerState.STOPPED


def _settled(runner: WorkerRunner, before: Epoch) -> bool:
    """Whether a newer process than that of epoch `before` is ready, or none will be."""
    life = runner.lifecycle
    if life.state is WorkerState.STOPPED:
        return True
    return life.epoch > before and life.state in {WorkerState.READY, WorkerState.FAILED}
