"""All workers of a front, by the names that their models are served under.

Owns the places, the upkeep and the counters. Decides nothing about a worker's life (`lifecycle.py`)
or about requests: the listener gets a worker's handle by `worker_ready` and talks to it.
"""

import asyncio
import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import msgspec

from gpufc.config import Config, ModelConfig, Replay, Standby
from gpufc.errors import NotFound, Overloaded
from gpufc.facts import MAX_SEQUENCES
from gpufc.ids import Epoch, WorkerName
from gpufc.sampling import SamplingFields
from supervisor.fleet import events as ev
from supervisor.fleet import upkeep
from supervisor.fleet.condition import FAILED_S, of_group
from supervisor.fleet.crash_store import CrashStore, CrashWriter
from supervisor.fleet.edge import LocalEdge
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.inheritance import FleetInheritance, Holdings, is_unchanged, take_stock
from supervisor.fleet.ladder import Timings
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.names import ServedNames, adapter_names, aliases, file_names, served_name
from supervisor.fleet.place import Place
from supervisor.fleet.port import (
    Condition,
    ConditionStatus,
    FleetListener,
    ModelChange,
    OnReplacement,
    SpareStatus,
    WorkerHandle,
    WorkerStatus,
    not_followed,
)
from supervisor.fleet.process import WORKER_COMMAND
from supervisor.fleet.reconfiguring import reconfigure
from supervisor.fleet.replacer import Replacer
from supervisor.fleet.restart_policy import RestartPolicy
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.standby import Spare, SparePool, spare_backend
from supervisor.fleet.watchdog import LIMITS, WatchLimits
from supervisor.fleet.worker import Hooks, WorkerSpec
from supervisor.runtime_dir import RuntimeDir

logger = logging.getLogger(__name__)

STOP_LIMIT_S = 30.0
"""Longer than every ladder: only a process that the kernel cannot end takes more."""


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
        inheritance: FleetInheritance | None = None,
        spare: Spare | None = None,
    ) -> None:
        """`inheritance`: running workers that another front is about to hand over.

        `spare` becomes the first worker, unless the configuration wants no spare.
        """
        held = inheritance.holdings if inheritance else None
        self.listener = listener
        self.restarts_total: Counter[Reason] = Counter()
        """Replacements started so far, by the end of the process before."""
        self._config = config
        self._timings = timings or Timings(load_s=config.fleet.load_timeout_s)
        self._rng = rng or random.Random()  # noqa: S311 - it spreads restarts, it hides nothing
        self.restarts_total.update(held.restarts if held else {})
        self._epochs = itertools.count(held.next_epoch if held else 1)
        self._watch = watch
        self._crashes = CrashWriter(CrashStore(runtime.path))
        self._spares = self._spare_pool(runtime, command, spare)
        running = inheritance.processes if inheritance else None
        self._edge = LocalEdge(runtime, command, self._spares, running)
        self._tasks: list[asyncio.Task[None]] = []
        self._work: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._successor: Condition | None = None
        models = config.models.values()
        self._names = ServedNames(
            {served_name(model): aliases(model) for model in models},
            {served_name(model): (*model.aliases, *adapter_names(model)) for model in models},
        )
        self._groups = {
            served_name(model): [self._replacer(self._spec(group, 0, served_name(model), model))]
            for group, model in config.models.items()
        }
        if held is not None:
            self._inherit(held)

    async def start(self) -> None:
        """Begin to start all workers. Returns at once; the listener hears `worker_ready` later."""
        config, delay_s = self._config.fleet, self._timings.spare_s
        self._keep_up(upkeep.look_after(self._edge))
        for replacer in self._replacers():
            replacer.place.start()
            self._keep_up(upkeep.recycle(replacer, config.recycle_growth_bytes))
            self._keep_up(upkeep.await_model_files(replacer.place))
            if config.standby is Standby.HOT:
                self._keep_up(upkeep.keep_hot(replacer, delay_s))

    def _keep_up(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def stop(self, *, now: bool = False) -> None:
        """End all processes and close all descriptors. `now` kills; otherwise workers are asked.

        May be called again, also with `now` while another call waits.
        """
        self._stopping = True
        await self._end_tasks()
        if self._spares is not None:
            self._spares.end()
        if self._successor is None:
            for place in self._places():
                place.request_stop(now=now)
            await self._wait_stopped()
        for place in self._places():
            await place.close()
        if self._spares is not None:
            await self._spares.wait_ended()
        self._edge.close()
        await asyncio.to_thread(self._crashes.close)

    def _inherit(self, held: Holdings) -> None:
        """Begin with the places of the fleet before, and their counters."""
        for model, names in held.models.items():
            workers = [worker for worker in held.workers if worker.spec.model == model]
            if not workers:
                continue  # it had no process: start it as configured
            self._names.add(model, *names)
            self._groups[model] = [self._replacer(worker.spec) for worker in workers]
            for replacer, worker in zip(self._groups[model], workers, strict=True):
                replacer.place.runner.post(ev.Adopted())
                if worker.last_exit is not None:
                    replacer.place.runner.post(ev.TookOver(worker.restarts, worker.last_exit))

    # another front takes over

    def holdings(self) -> Holdings:
        """The workers to hand over. Raises `Overloaded` unless every place is settled."""
        return take_stock(
            self._places(),
            self._names.known(),
            next_epoch=Epoch(next(self._epochs)),
            restarts=self.restarts_total,
        )

    def _require_ours(self) -> None:
        if self._successor is not None:
            raise Overloaded("another front has the workers", retry_after_s=1.0)

    def holds(self, holdings: Holdings) -> bool:
        """Whether every worker is the same as when these were taken."""
        return is_unchanged(self._places(), holdings)

    def serving(self, model: str) -> list[WorkerHandle]:
        """The ready workers of a model."""
        workers = [replacer.place.runner.worker for replacer in self._groups[model]]
        return [worker for worker in workers if worker is not None]

    def lend(self, worker: WorkerName) -> tuple[int, int] | None:
        """The descriptors of a worker's process, to be copied. None if it has ended."""
        return self._place_of(worker).runner.lend()

    def hand_over(self, worker: WorkerName, successor: Epoch, endpoint: str, token: str) -> None:
        """Send a worker to another front. From now on this fleet manages no worker."""
        self._successor = Condition(ConditionStatus.OK, "", 0.0)
        self._place_of(worker).current.hand_over(successor, endpoint, token)

    async def let_go(self) -> None:
        """The other front has the workers: end the other processes, and close all descriptors."""
        await self._end_tasks()
        if self._spares is not None:
            self._spares.end()
        for place in self._places():
            await place.dismiss()
            place.runner.let_go()

    def successor_lost(self) -> None:
        """The other front is gone, and the workers with it."""
        if self._successor is not None:
            self._successor = Condition(ConditionStatus.FAILED, "the new front is gone", FAILED_S)

    def _place_of(self, worker: WorkerName) -> Place:
        return next(place for place in self._places() if place.spec.name == worker)

    async def _end_tasks(self) -> None:
        tasks = [*self._tasks, *self._work]
        self._tasks = []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait_stopped(self) -> None:
        try:
            async with asyncio.timeout(STOP_LIMIT_S):
                for place in self._places():
                    await place.wait_stopped()
        except TimeoutError:
            logger.error("workers_not_ended: the kernel does not end them; they are left alone")

    def condition(self, model: str | None = None) -> Condition:
        """Whether a token could be produced now: by `model`, or by any without it.

        Raises `ModelNotFound`.
        """
        if self._successor is not None:
            return self._successor
        if self._stopping:
            return Condition(ConditionStatus.DRAINING, "the front is stopping", 1.0)
        replacers = self._replacers() if model is None else self._groups[self.resolve(model)]
        return of_group(replacer.place.condition() for replacer in replacers)

    def models(self) -> list[str]:
        """The names that models are served under."""
        return list(self._groups)

    def resolve(self, name: str | None) -> str:
        """The served name that a client's `model` means. Raises `ModelNotFound`."""
        return self._names.resolve(name)

    def shown(self, name: str | None) -> str:
        """The model's name in an answer to a client that has asked for `name`."""
        return self._names.shown(name)

    def replay(self, model: str) -> Replay:
        """How a continued request of `model` feeds its tokens."""
        return self._groups[model][0].place.spec.config.replay

    def sampling(self, model: str) -> SamplingFields:
        """The configured defaults for sampling from `model`."""
        return self._groups[model][0].place.spec.config.sampling or SamplingFields()

    def adapters(self, model: str) -> tuple[str, ...]:
        """The LoRA adapters that a request of `model` may choose."""
        return adapter_names(self._groups[model][0].place.spec.config)

    def workers(self) -> list[WorkerStatus]:
        """A row for each worker, and one for each retiring worker that still has streams."""
        return [row for place in self._places() for row in place.workers()]

    def spares(self) -> list[SpareStatus]:
        """A row for each warm or hot spare."""
        loaded = [row for place in self._places() for row in place.spares()]
        return loaded + (self._spares.rows() if self._spares else [])

    async def restart(
        self, worker: WorkerName | None, *, now: bool = False, tell: OnReplacement = not_followed
    ) -> None:
        """Replace a worker's process, or all one after another; clears `failed`.

        Returns when the new workers are ready. Raises `NotFound` for an unknown name, `Overloaded`
        during another replacement, `EngineUnavailable` when a new worker cannot take over. A
        replacement that has begun goes on when the caller is cancelled.
        """
        self._require_ours()
        chosen = [each for each in self._replacers() if worker in {None, each.place.spec.name}]
        if not chosen:
            raise NotFound(f"there is no worker {worker!r}", param="worker")
        for replacer in chosen:
            await self._lasting(self._renewed(replacer, replacer.restart(now=now, tell=tell)))

    async def swap(
        self, name: str | None, change: ModelChange, *, tell: OnReplacement = not_followed
    ) -> None:
        """Serve another model under a served name, worker by worker.

        None means the only model. With one model served, an unknown name becomes an alias of it.
        The first worker that cannot take over ends the swap, and later workers stay as they are.
        Raises `ModelNotFound`, `SwapRefused`, `Overloaded`. A replacement that has begun goes on
        when the caller is cancelled.
        """
        self._require_ours()
        model = self._names.to_be_swapped(name)
        for replacer in self._groups[model]:
            await self._lasting(self._renewed(replacer, replacer.swap(change, tell=tell)))
        self._names.add(model, *file_names(change.model_path), *filter(None, (name,)))

    async def reconfigure(
        self,
        models: Mapping[str, Mapping[str, Any]],
        n_sequences: int,
        *,
        needs_workers: bool,
        tell: OnReplacement = not_followed,
    ) -> None:
        """Serve with other values of some keys, by name in `Config.models`, or not at all
        (`reconfiguring.py`)."""
        self._require_ours()

        def serve(replacer: Replacer, wanted: WorkerSpec) -> Awaitable[None]:
            return self._lasting(self._renewed(replacer, replacer.serve(wanted, tell=tell)))

        replacers = self._replacers()
        await reconfigure(replacers, models, n_sequences, serve if needs_workers else None)
        for model, (first, *_) in self._groups.items():
            config = first.place.spec.config
            self._names.configure(model, (*config.aliases, *adapter_names(config)))
            self._names.add(model, *file_names(config.model_path))

    async def _renewed(self, replacer: Replacer, work: Coroutine[Any, Any, None]) -> None:
        """An operator's replacement, and word of it to the listener, also when it failed."""
        try:
            await work
        finally:
            if self.listener is not None:
                self.listener.engine_renewed(replacer.place.spec.model)

    async def _lasting(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a replacement that goes on when the caller is cancelled."""
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        await asyncio.shield(task)

    def _replacers(self) -> list[Replacer]:
        return [replacer for group in self._groups.values() for replacer in group]

    def _places(self) -> list[Place]:
        return [replacer.place for replacer in self._replacers()]

    def _spec(self, group: str, index: int, model: str, config: ModelConfig) -> WorkerSpec:
        return WorkerSpec(
            name=WorkerName(f"{group}-{index}"),
            model=model,
            config=msgspec.structs.replace(config, model=model),
            n_sequences=min(self._config.admission.max_concurrent_requests, MAX_SEQUENCES),
            log_level=self._config.server.log_level,
            log_format=self._config.server.log_format,
        )

    def _replacer(self, spec: WorkerSpec) -> Replacer:
        place = Place(spec, self._runner, lambda: self.listener, self._became_ready)
        return Replacer(place, self._count, handover_kv_bytes=self._config.fleet.handover_kv_bytes)

    def _runner(
        self, spec: WorkerSpec, listener: FleetListener, drained: Callable[[], None]
    ) -> WorkerRunner:
        policy = RestartPolicy(self._config.fleet.restart_limit, self._rng)
        lifecycle = WorkerLifecycle(
            policy,
            self._timings,
            lambda: Epoch(next(self._epochs)),
            unix_offset_s=time.time() - time.monotonic(),
        )
        hooks = Hooks(self._count, self._became_ready, self._crashes.submit, drained)
        return WorkerRunner(spec, lifecycle, self._edge, listener, hooks, self._watch)

    def _spare_pool(
        self, runtime: RuntimeDir, command: Sequence[str], first: Spare | None
    ) -> SparePool | None:
        if self._config.fleet.standby is Standby.NONE:
            return None
        return SparePool(
            command,
            runtime.logs,
            spare_backend(self._config),
            self._is_quiet,
            delay_s=self._timings.spare_s,
            first=first,
        )

    def _is_quiet(self) -> bool:
        runners = [runner for place in self._places() for runner in place.runners()]
        return not any(runner.is_coming_up for runner in runners)

    def _became_ready(self) -> None:
        if self._spares is not None:
            self._spares.refill_soon()

    def _count(self, reason: Reason) -> None:
        self.restarts_total[reason] += 1
