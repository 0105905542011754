"""Makes a fleet's groups, places and runners, and gives each what all of them share."""

import itertools
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from gpufc.config import Config, FleetConfig, ModelConfig, Spread, Standby
from gpufc.errors import ConfigError
from gpufc.facts import MAX_SEQUENCES
from gpufc.ids import Epoch, WorkerName
from supervisor.fleet import upkeep
from supervisor.fleet.device_room import left_for
from supervisor.fleet.edge import Edge
from supervisor.fleet.exit_reason import Reason
from supervisor.fleet.group import Group
from supervisor.fleet.kept_kv import KeptKv
from supervisor.fleet.ladder import Timings
from supervisor.fleet.lifecycle import WorkerLifecycle
from supervisor.fleet.line import Line
from supervisor.fleet.place import Place
from supervisor.fleet.placer import PlacedEdge
from supervisor.fleet.port import FleetListener
from supervisor.fleet.replacer import Replacer
from supervisor.fleet.restart_policy import RestartPolicy
from supervisor.fleet.runner import WorkerRunner
from supervisor.fleet.watchdog import WatchLimits
from supervisor.fleet.worker import Hooks, WorkerSpec, of_replica

MAX_NAME_CHARS = 80
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._-]")


class Maker:
    """Owns what a fleet's workers share: epochs, the counter of restarts, their edge and limits."""

    def __init__(
        self,
        config: Config,
        edge: Edge,
        *,
        remote: Callable[[], PlacedEdge] | None = None,
        lines: Callable[[], Iterable[Line]] = tuple,
        listener: Callable[[], FleetListener | None],
        hooks: Hooks,
        timings: Timings,
        watch: WatchLimits,
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
        next_epoch: int = 1,
        restarts: Mapping[Reason, int] = {},
    ) -> None:
        """`remote` makes the edges of lines on other machines. `lines` gives all lines of now.
        `hooks` are those of every runner; `restarted` and `drained` are added to them."""
        self.restarts_total: Counter[Reason] = Counter(restarts)
        """Replacements started so far, by the end of the process before."""
        self._config = config
        self._edge = edge
        self._remote = remote
        self._lines = lines
        self._listener = listener
        self._hooks = hooks
        self._timings = timings
        self._watch = watch
        self._rng = rng
        self._clock = clock
        self._epochs = itertools.count(next_epoch)
        self._group_names: set[str] = set()
        self.kept = KeptKv(config.fleet.kept_kv_bytes)

    @property
    def _fleet(self) -> FleetConfig:
        return self._config.fleet

    def next_epoch(self) -> Epoch:
        """An epoch that no process had before."""
        return Epoch(next(self._epochs))

    def group(self, name: str, model: str, config: ModelConfig) -> Group:
        """A model without a worker. `name` is the beginning of its workers' names, `model` the
        served name."""
        name = self._own_name(name)
        is_spread = config.spread is Spread.MACHINES
        specs = [
            self._spec(
                name,
                model,
                config,
                index,
                is_remote=is_spread and index >= config.local_replicas,
            )
            for index in range(config.replicas)
        ]
        return Group(name, model, specs, self._replacer, self._upkeep, self._clock)

    def _own_name(self, name: str) -> str:
        """A name that no other group has, and that a file may have."""
        plain = _NOT_PLAIN.sub("_", name)[:MAX_NAME_CHARS].lstrip(".-") or "model"
        number, found = 1, plain
        while found in self._group_names:
            number += 1
            found = f"{plain}_{number}"
        self._group_names.add(found)
        return found

    def forget(self, group: Group) -> None:
        """A group is served no more: another one may have its workers' names."""
        self._group_names.discard(group.name)
        self.kept.forget(group.model)

    def _spec(
        self, name: str, model: str, config: ModelConfig, replica: int, *, is_remote: bool
    ) -> WorkerSpec:
        return WorkerSpec(
            name=WorkerName(f"{name}-{replica}"),
            model=model,
            config=of_replica(msgspec.structs.replace(config, model=model), replica),
            n_sequences=min(self._config.admission.max_concurrent_requests, MAX_SEQUENCES),
            log_level=self._config.server.log_level,
            log_format=self._config.server.log_format,
            replica=replica,
            is_remote=is_remote,
        )

    def _replacer(self, spec: WorkerSpec) -> Replacer:
        place = Place(spec, self._runner, self._listener, self._hooks.became_ready, self.kept)
        return Replacer(place, self._count, handover_kv_bytes=self._fleet.handover_kv_bytes)

    def _upkeep(self, replacer: Replacer) -> Iterator[Coroutine[Any, Any, None]]:
        yield upkeep.recycle(replacer, self._fleet.recycle_growth_bytes)
        yield upkeep.await_model_files(replacer.place)
        is_only = len(self._config.models) == 1 and self._fleet.models_dir is None
        if self._fleet.standby is Standby.HOT and is_only:  # else the memory is for other models
            yield upkeep.keep_hot(replacer, self._timings.spare_s)

    def _runner(
        self, spec: WorkerSpec, listener: FleetListener, drained: Callable[[], None]
    ) -> WorkerRunner:
        lifecycle = WorkerLifecycle(
            RestartPolicy(self._fleet.restart_limit, self._rng),
            self._timings,
            self.next_epoch,
            unix_offset_s=time.time() - time.monotonic(),
            is_placed=spec.is_remote,
        )
        hooks = msgspec.structs.replace(self._hooks, restarted=self._count, drained=drained)
        placed = self._placed() if spec.is_remote else None
        edge = self._edge if placed is None else placed
        return WorkerRunner(
            spec, lifecycle, edge, listener, hooks, self._watch, placed, self._device_limit
        )

    def _device_limit(self, newcomer: WorkerRunner) -> int | None:
        """What is left of each GPU's limit for the next process of a line. Two processes that load
        for the first time at once do not know of each other: the roster loads one at a time."""
        others = (one for one in self._lines() if one is not newcomer and not one.spec.is_remote)
        held = [one.held for one in others]
        limit_bytes = self._fleet.device_memory_limit_bytes
        return left_for(newcomer.spec.config, limit_bytes, filter(None, held))

    def _placed(self) -> PlacedEdge:
        if self._remote is None:
            raise ConfigError("spread = machines needs cluster_listen, where machines join")
        return self._remote()

    def _count(self, reason: Reason) -> None:
        self.restarts_total[reason] += 1


def first_epoch(*, is_alone: bool) -> int:
    """Beyond the epochs of fronts that ran before, whose workers a host may bring: late messages of
    a worker's old epoch must not pass for those of its new one."""
    return 1 if is_alone else int(time.time())
