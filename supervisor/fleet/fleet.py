"""All workers of a front, by the names that their models are served under.

Owns the places, the upkeep and the counters. Decides nothing about a worker's life (`lifecycle.py`)
or about requests: the listener gets a worker's handle by `worker_ready` and talks to it.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from gpufc.config import Config, ModelConfig, Replay, Spread
from gpufc.errors import ConfigError, NotFound, Overloaded
from gpufc.ids import WorkerName
from gpufc.sampling import SamplingFields
from supervisor.fleet import replacement_rules as rules
from supervisor.fleet import upkeep
from supervisor.fleet.condition import START_S
from supervisor.fleet.crash_store import CrashStore, CrashWriter
from supervisor.fleet.edge import LocalEdge
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.group import Group, of_models
from supervisor.fleet.inheritance import FleetInheritance, Holdings
from supervisor.fleet.ladder import Timings
from supervisor.fleet.line import Line
from supervisor.fleet.maker import Maker, first_epoch
from supervisor.fleet.names import ServedNames, adapter_names, aliases, file_names, served_name
from supervisor.fleet.place import Place
from supervisor.fleet.placer import PlacedEdge
from supervisor.fleet.port import (
    Condition,
    ConditionStatus,
    FleetListener,
    ModelChange,
    OnReplacement,
    SpareStatus,
    WorkerStatus,
    not_followed,
)
from supervisor.fleet.process import WORKER_COMMAND
from supervisor.fleet.reconfiguring import reconfigure
from supervisor.fleet.replacer import Replacer
from supervisor.fleet.standby import Spare, spare_pool
from supervisor.fleet.succession import Succession
from supervisor.fleet.watchdog import LIMITS, WatchLimits
from supervisor.fleet.worker import Hooks, WorkerSpec
from supervisor.runtime_dir import RuntimeDir

logger = logging.getLogger(__name__)

STOP_LIMIT_S = 30.0
"""Longer than every ladder: only a process that the kernel cannot end takes more."""


class Fleet:
    """Model name → group of places. Made, started and stopped once, in the main thread's loop.

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
        remote: Callable[[], PlacedEdge] | None = None,
    ) -> None:
        """`remote` makes the edges of workers on other machines. `inheritance`: running workers
        that another front is about to hand over.

        `spare` becomes the first worker, unless the configuration wants no spare.
        """
        held = inheritance.holdings if inheritance else None
        self.listener = listener
        self._config = config
        self._timings = timings or Timings(load_s=config.fleet.load_timeout_s)
        self._crashes = CrashWriter(CrashStore(runtime.path))
        self._spares = spare_pool(
            config,
            command,
            runtime.logs,
            self._is_quiet,
            delay_s=self._timings.spare_s,
            first=spare,
        )
        running = inheritance.processes if inheritance else None
        self._edge = LocalEdge(runtime, command, self._spares, running)
        self._maker = Maker(
            config,
            self._edge,
            remote=remote,
            lines=self._lines,
            listener=lambda: self.listener,
            hooks=Hooks(became_ready=self._became_ready, crashed=self._crashes.submit),
            timings=self._timings,
            watch=watch,
            rng=rng or random.Random(),  # noqa: S311 - it spreads restarts, it hides nothing
            next_epoch=held.next_epoch if held else first_epoch(is_alone=remote is None),
            restarts=held.restarts if held else {},
        )
        self._upkeep: asyncio.Task[None] | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._started = self._stopping = False
        self._names = ServedNames()
        self._groups: dict[str, Group] = {}
        self._withdrawn: dict[str, Group] = {}
        """Served no more, but they may have workers."""
        self.succession = Succession(
            self._groups, self._withdrawn, self._names, self._maker, self._places
        )
        self._held = held
        for name, model in config.models.items():
            self.add(name, model)

    def add(self, name: str, config: ModelConfig) -> Group:
        """Serve one more model, without a worker. `name` is the beginning of its workers' names.
        Raises `ConfigError` if another model has its served name."""
        model = served_name(config)
        if model in self._groups or model in self._withdrawn:
            raise ConfigError(f"two models are to be served as {model!r}; rename one of them")
        self._names.serve(model, aliases(config), (*config.aliases, *adapter_names(config)))
        group = self._groups[model] = self._maker.group(name, model, config)
        return group

    def loads_for_a_request(self) -> None:
        """A model is loaded on demand."""
        if self._spares is not None:
            self._spares.refill_beside_load()

    @property
    def kept_kv_bytes(self) -> int:
        """Memory that holds computed KV of models which are not in memory."""
        return self._maker.kept.n_bytes

    def make_room(self, n_bytes: int) -> None:
        """Give up kept KV until so many bytes of the host's memory are free."""
        self._maker.kept.make_room(n_bytes)

    def withdraw(self, model: str) -> None:
        """Accept no more requests for a model. Its workers stay until `remove`."""
        self._withdrawn[model] = self._groups.pop(model)
        self._names.forget(model)

    async def remove(self, model: str) -> None:
        """Forget a withdrawn model, which has no worker any more."""
        group = self._withdrawn.pop(model)
        self._maker.forget(group)
        await group.close()

    def group(self, model: str) -> Group:
        """The places of a served model. Raises `KeyError`."""
        return self._groups[model]

    def model_without(self, worker: WorkerName) -> str | None:
        """The model whose next load starts a worker of this name on another machine, if any."""
        specs = ((model, group.next_spec) for model, group in self._groups.items())
        found = (model for model, one in specs if one and one.is_remote and one.name == worker)
        return next(found, None)

    async def start(self) -> None:
        """Take running workers over, and begin to load the only model. Of several, the roster loads
        one after another. Returns at once; the listener hears `worker_ready` later."""
        self._started = True
        self._upkeep = asyncio.create_task(upkeep.look_after(self._edge))
        if self._held is not None:
            self._inherit(self._held)
        for name, config in self._config.models.items():
            group = self._groups[served_name(config)]
            if not self._config.is_preloaded(name):
                continue
            if config.spread is Spread.MACHINES:  # hosts may bring the workers of each place
                while group.load() is not None:
                    pass
            elif len(self._config.models) == 1 and not group.places:
                group.load()

    async def stop(self, *, now: bool = False) -> None:
        """End all processes and close all descriptors. `now` kills; otherwise workers are asked.

        May be called again, also with `now` while another call waits.
        """
        self._stopping = True
        await self._end_tasks()
        if self._spares is not None:
            self._spares.end()
        if self.succession.condition is None:
            for group in self._all_groups():
                group.request_stop(now=now)
            await self._wait_stopped()
        for group in self._all_groups():
            await group.close()
        if self._spares is not None:
            await self._spares.wait_ended()
        await self._maker.kept.close()
        self._edge.close()
        await asyncio.to_thread(self._crashes.close)

    def _inherit(self, held: Holdings) -> None:
        """Begin with the workers of the fleet before. A model without one is as configured."""
        for model, names in held.models.items():
            workers = [worker for worker in held.workers if worker.spec.model == model]
            if workers and model not in self._groups:  # of a folder that has not been read yet
                self.add(str(workers[0].spec.name).rpartition("-")[0], workers[0].of_place.config)
            if workers:
                self._names.add(model, *names)
                self._groups[model].adopt(workers)

    # another front takes over

    async def let_go(self) -> None:
        """The other front has the workers: end the other processes, and close all descriptors."""
        await self._end_tasks()
        if self._spares is not None:
            self._spares.end()
        for place in self._places():
            await place.dismiss()
            place.runner.let_go()

    async def _end_tasks(self) -> None:
        tasks = [*filter(None, (self._upkeep,)), *self._work]
        self._upkeep = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for group in self._all_groups():
            await group.end_upkeep()

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
        if self.succession.condition is not None:
            return self.succession.condition
        if self._stopping:
            return Condition(ConditionStatus.DRAINING, "the front is stopping", 1.0)
        if not self._started:
            return Condition(ConditionStatus.LOADING, "not started yet", START_S)
        if model is not None:
            group = self._withdrawn.get(model) or self._groups[self.resolve(model)]
            return group.condition()
        return of_models(self._groups.values())

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
        return self._groups[model].config.replay

    def sampling(self, model: str) -> SamplingFields:
        """The configured defaults for sampling from `model`."""
        return self._groups[model].config.sampling or SamplingFields()

    def adapters(self, model: str) -> tuple[str, ...]:
        """The LoRA adapters that a request of `model` may choose."""
        return adapter_names(self._groups[model].config)

    @property
    def restarts_total(self) -> Mapping[Reason, int]:
        """Replacements started so far, by the end of the process before."""
        return self._maker.restarts_total

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
        self.succession.require_ours()
        chosen = [each for each in self._replacers() if worker in {None, each.place.spec.name}]
        if not chosen:
            raise NotFound(f"there is no worker {worker!r}", param="worker")
        for replacer in chosen:
            await self._lasting(self._renewed(replacer, replacer.restart(now=now, tell=tell)))

    def to_be_swapped(self, name: str | None) -> str:
        """The served name that a swap of `name` means. Raises `ModelNotFound`."""
        return self._names.to_be_swapped(name)

    async def swap(
        self, name: str | None, change: ModelChange, *, tell: OnReplacement = not_followed
    ) -> None:
        """Serve another model under a served name, worker by worker.

        None means the only model. With one model served, an unknown name becomes an alias of it.
        The first worker that cannot take over ends the swap, and later workers stay as they are.
        Raises `ModelNotFound`, `SwapRefused`, `Overloaded`. A replacement that has begun goes on
        when the caller is cancelled.
        """
        self.succession.require_ours()
        model = self.to_be_swapped(name)
        group, done = self._groups[model], list[Replacer]()
        while replacer := next((one for one in group.staying if one not in done), None):
            await self._lasting(self._renewed(replacer, replacer.swap(change, tell=tell)))
            done.append(replacer)
            change = msgspec.structs.replace(change, canary=None)  # one worker has proven it
        if not done:
            raise Overloaded(f"{model} is not in memory; `load` it first", retry_after_s=1.0)
        group.respecify(partial(rules.swapped, change=change))
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
        self.succession.require_ours()

        def serve(replacer: Replacer, wanted: WorkerSpec) -> Awaitable[None]:
            return self._lasting(self._renewed(replacer, replacer.serve(wanted, tell=tell)))

        found = [
            (self._groups[served_name(config)], models.get(name, {}))
            for name, config in self._config.models.items()
        ]
        await reconfigure(found, n_sequences, serve if needs_workers else None)
        for group, _ in found:
            config = group.config
            self._names.configure(group.model, (*config.aliases, *adapter_names(config)))
            self._names.add(group.model, *file_names(config.model_path))

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
        return [replacer for group in self._all_groups() for replacer in group.replacers]

    def _all_groups(self) -> list[Group]:
        return [*self._groups.values(), *self._withdrawn.values()]

    def _places(self) -> list[Place]:
        return [replacer.place for replacer in self._replacers()]

    def _is_quiet(self) -> bool:
        return not any(one.is_coming_up and not one.spec.is_remote for one in self._lines())

    def _lines(self) -> Iterator[Line]:
        return (runner for place in self._places() for runner in place.runners())

    def _became_ready(self, is_first: bool) -> None:
        if self._spares is not None:
            self._spares.refill_in(self._timings.before_spare_s(is_first=is_first))
